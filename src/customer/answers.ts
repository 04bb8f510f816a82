/** What a verified event says about one purchase: an offer, progress, a result, an error, or nothing that concerns it. */
import { type Msats, msats } from '../base/amounts.ts'
import { parseJson } from '../base/json.ts'
import { resultKindOf } from '../nostr/nips/nip90.ts'
import { FEEDBACK_KIND, type Feedback, parseFeedback, parseResult } from '../nostr/nips/nip90-answers.ts'
import type { LocalSigner, NostrEvent } from '../nostr/types.ts'
import { type DecodedInvoice, readInvoice } from '../wallet/lightning/bolt11.ts'

export type Answer =
  | { readonly type: 'offer'; readonly amountMsats: Msats; readonly bolt11: string | null; readonly invoice: DecodedInvoice | undefined }
  | { readonly type: 'processing' }
  | { readonly type: 'result'; readonly content: string }
  | { readonly type: 'error'; readonly code: string; readonly message: string; readonly refundToken: string | null }
  | { readonly type: 'note'; readonly status: string }

const MAX_MESSAGE_CHARS = 500
/** Tokens are kept and tried: what is longer is none that a mint would take at once. */
const MAX_TOKEN_CHARS = 262_144

/**
 * Undefined when the event is of another kind or names no request; what can be read of it counts, whatever else is wrong.
 * @param expected.signer decrypts; undefined where the sender has no business to encrypt to us
 */
export function readAnswer(
  event: NostrEvent,
  expected: { readonly kind: number; readonly signer: LocalSigner | undefined },
): Answer | undefined {
  try {
    if (event.kind === FEEDBACK_KIND) return readFeedback(parseFeedback(event, expected.signer))
    if (event.kind !== resultKindOf(expected.kind)) return undefined
    const result = parseResult(event, expected.signer)
    return result.unreadable ? { type: 'note', status: 'a result that we cannot decrypt' } : { type: 'result', content: result.content }
  } catch {
    // It names no request of anybody: no answer.
    return undefined
  }
}

function readFeedback(feedback: Feedback): Answer {
  const { status, extra, content, unreadable, bolt11 } = feedback
  const invoice = bolt11 === undefined ? undefined : readInvoice(bolt11)
  const asked = feedback.amountMsats ?? invoice?.amountMsats
  if (status === 'payment-required' && asked !== undefined) {
    return { type: 'offer', amountMsats: msats(asked), bolt11: bolt11 ?? null, invoice }
  }
  if (status === 'processing') return { type: 'processing' }
  const refundToken = feedback.refundToken !== undefined && feedback.refundToken.length <= MAX_TOKEN_CHARS ? feedback.refundToken : null
  // Money that comes back does, under whatever status.
  if (status === 'error' || refundToken !== null) {
    const words = unreadable ? '' : feedback.refundToken === undefined ? content : reasonOfRefund(content)
    return {
      type: 'error',
      code: (extra ?? 'error').slice(0, MAX_MESSAGE_CHARS),
      message: words.slice(0, MAX_MESSAGE_CHARS) || 'no reason was given',
      refundToken,
    }
  }
  return { type: 'note', status: unreadable ? `${status}, which we cannot decrypt` : status }
}

/** The `error` beside the token: the content as it is would put money into logs and tables. */
function reasonOfRefund(content: string): string {
  const reason = (parseJson(content) as { error?: unknown } | undefined)?.error
  return typeof reason === 'string' ? reason : ''
}
