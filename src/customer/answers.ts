/** What a verified event says about one purchase: an offer, progress, a result, an error, or nothing that concerns it. */
import type { Msats } from '../base/amounts.ts'
import { parseJson } from '../base/json.ts'
import { resultKindOf } from '../nostr/nips/nip90.ts'
import { FEEDBACK_KIND, type Feedback, parseFeedback, parseResult } from '../nostr/nips/nip90-answers.ts'
import type { NostrEvent, Signer } from '../nostr/types.ts'

export type Answer =
  | { readonly type: 'offer'; readonly amountMsats: Msats; readonly bolt11: string | null }
  | { readonly type: 'processing' }
  | { readonly type: 'result'; readonly content: string }
  | { readonly type: 'error'; readonly code: string; readonly message: string; readonly refundToken: string | null }
  | { readonly type: 'note'; readonly status: string }

interface Expected {
  readonly kind: number
  /** The only keys whose answers count, once there are any. */
  readonly providers: readonly string[] | undefined
  readonly signer: Signer
}

const MAX_MESSAGE_CHARS = 500

/** Undefined when the event is malformed, of another kind, of another provider, or cannot be read. */
export function readAnswer(event: NostrEvent, expected: Expected): Answer | undefined {
  if (expected.providers?.includes(event.pubkey) === false) return undefined
  try {
    if (event.kind === FEEDBACK_KIND) return readFeedback(parseFeedback(event, expected.signer))
    if (event.kind !== resultKindOf(expected.kind)) return undefined
    const result = parseResult(event, expected.signer)
    return result.unreadable ? undefined : { type: 'result', content: result.content }
  } catch {
    // Whatever a stranger got wrong: it is no answer.
    return undefined
  }
}

function readFeedback(feedback: Feedback): Answer {
  const { status, extra, content, unreadable, amountMsats } = feedback
  if (status === 'payment-required' && amountMsats !== undefined) return { type: 'offer', amountMsats, bolt11: feedback.bolt11 ?? null }
  if (status === 'processing') return { type: 'processing' }
  if (status === 'error') {
    const words = unreadable ? '' : feedback.refundToken === undefined ? content : reasonOfRefund(content)
    return {
      type: 'error',
      code: (extra ?? 'error').slice(0, MAX_MESSAGE_CHARS),
      message: words.slice(0, MAX_MESSAGE_CHARS) || 'no reason was given',
      refundToken: feedback.refundToken ?? null,
    }
  }
  return { type: 'note', status }
}

/** The `error` beside the token: the content as it is would put money into logs and tables. */
function reasonOfRefund(content: string): string {
  const reason = (parseJson(content) as { error?: unknown } | undefined)?.error
  return typeof reason === 'string' ? reason : ''
}
