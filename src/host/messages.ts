/** What was said to an agent, for its owner and its tools: words of strangers, as data. */
import { msats } from '../base/amounts.ts'
import { rfc3339 } from '../base/clock.ts'
import { isHex64 } from '../nostr/nips/nip01.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import type { Keyring } from '../nostr/types.ts'
import type { AgentRow } from '../store/agents/agents.ts'
import { type SaidRow, saidTo } from '../store/agents/heard.ts'
import type { Store } from '../store/store.ts'
import type { ActionContext } from './actions/run.ts'
import { cleanText, timeSaid } from './observation.ts'

const MAX_TEXT_CHARS = 4000
/** What policy looks back at when no tick has observed anything. */
const CONTEXT_MESSAGES = 100

export type MessageView = ReturnType<typeof messagesTo>[number]

interface Deps {
  readonly store: Store
  readonly keyring: Pick<Keyring, 'owns'>
}

/** Newest first. */
export function messagesTo({ store, keyring }: Deps, agent: Pick<AgentRow, 'pubkey'>, limit: number) {
  return saidTo(store, agent.pubkey, limit).map((row) => ({
    id: row.id,
    type: row.type,
    from: npubOf(row.sender),
    from_pubkey: row.sender,
    own_home: keyring.owns(row.sender),
    text: textOf(row),
    scheme: row.scheme,
    amount_msats: row.amountMsats === null ? null : msats(row.amountMsats),
    zapped_id: zappedNote(row.event) ?? null,
    created_at: timeSaid(row.createdAt),
    heard_at: rfc3339(row.heardAt),
    tick_number: row.tickNumber,
  }))
}

/** What policy may go by when an agent acts outside its ticks: what it was told lately, observed or not. */
export function contextOf(deps: Deps, agent: Pick<AgentRow, 'pubkey'>): ActionContext {
  const said = messagesTo(deps, agent, CONTEXT_MESSAGES)
  return {
    tick: { trigger: 'errand' },
    mentions: said.filter((message) => message.type === 'mention'),
    dms: said
      .filter((message) => message.type === 'dm')
      .map((dm) => ({ pubkey: dm.from_pubkey, own_home: dm.own_home, text: dm.text ?? '' })),
    zaps: said.filter((message) => message.type === 'zap').map((zap) => ({ event_id: zap.zapped_id ?? '' })),
  }
}

function textOf(row: SaidRow): string | null {
  if (row.content !== '') return cleanText(row.content, MAX_TEXT_CHARS)
  return row.tickNumber === null ? '' : row.observedText
}

/** The id of the note that a zap in the database names. */
export function zappedNote(event: unknown): string | undefined {
  const zapped = typeof event === 'object' && event !== null ? (event as { zapped?: unknown }).zapped : undefined
  return isHex64(zapped) ? zapped : undefined
}
