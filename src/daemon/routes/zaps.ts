/** Handlers of the routes about zaps that the owner sends. */
import { sats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { zapsRoutes } from '../../control/contract/zaps.ts'
import type { Handlers } from '../../control/route.ts'
import { npubOf, parseEventPointer, parsePubkey, relayHints } from '../../nostr/nips/nip19.ts'
import { zapSplitsOf } from '../../nostr/nips/nip57.ts'
import type { NostrEvent } from '../../nostr/types.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { ownerKey, zapKey } from '../../store/keys.ts'
import { ownerNamed, type WalletServices } from './wallet.ts'

const FIND_TIMEOUT_MS = 5000

export function zapsHandlers(services: WalletServices): Handlers<typeof zapsRoutes> {
  return {
    sendZap: async ({ wallet, to, amount_sats, comment = '', by }, call) => {
      const { keyring, store, parts } = services
      const from = ownerNamed(keyring, store, wallet)
      const target = await targetOf(services, to)
      const actionId = ownerKey(from.pubkey, call.idempotencyKey)
      const sent = await parts.zaps.get().send({
        ...{ from, recipient: target.pubkey, amountSats: BigInt(amount_sats), comment, actionId, key: zapKey.of(actionId) },
        cause: { type: 'owner', id: call.idempotencyKey },
        relays: parts.nostr.get().relays,
        spend: { subject: 'owner', counterparty: target.pubkey },
        ...given({ by, eventId: target.event?.id, eventKind: target.event?.kind }),
        splits: async () => (target.event === undefined ? [] : zapSplitsOf(target.event)),
      })
      return {
        state: sent.state,
        amount_sats: sent.amountSats ?? sats(amount_sats),
        operation_id: sent.operationId,
        fee_sats: sent.state === 'paid' ? sent.feeSats : null,
        parts: (sent.parts ?? []).map(({ recipient, amountSats, state, reason = null }) => ({
          ...{ npub: npubOf(recipient), amount_sats: amountSats, state, reason },
        })),
      }
    },
  }
}

/** A key, an agent of this home, or an event with who wrote it, which is what the event says and no pointer. @throws pubkey_invalid, event_invalid, not_found */
async function targetOf({ parts, store }: WalletServices, to: string): Promise<{ pubkey: string; event?: NostrEvent }> {
  const bare = to.trim().replace(/^nostr:/i, '')
  const agent = findAgent(store, bare)
  if (agent !== undefined) return { pubkey: agent.pubkey }
  if (!/^(note1|nevent1)/i.test(bare)) return { pubkey: parsePubkey(bare) }
  const { id } = parseEventPointer(bare)
  const nostr = parts.nostr.get()
  const relays = [...new Set([...nostr.relays, ...relayHints(bare).slice(0, 3)])]
  const { events } = await nostr.query([{ ids: [id], limit: 1 }], { relays, timeoutMs: FIND_TIMEOUT_MS })
  const event = events.find((found) => found.id === id)
  if (event === undefined)
    throw new PylonError('not_found', `No relay has the event ${bare.slice(0, 80)}: name its author to zap the person.`)
  return { pubkey: event.pubkey, event }
}
