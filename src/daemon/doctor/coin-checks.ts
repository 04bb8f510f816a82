/** Checks of what wallets hold against what their mints say: coins that are spent, keysets that end, signatures that are no good. */
import type { WalletOwner } from '../../base/accounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { getAgent } from '../../store/agents/agents.ts'
import { walletOwners } from '../../store/money/held-value.ts'
import { oldCoins } from '../../store/money/keysets.ts'
import { listMints } from '../../store/money/mints.ts'
import { listOwed } from '../../store/money/owed-signatures.ts'
import type { Store } from '../../store/store.ts'
import { SOON_MS } from '../../wallet/mint/keysets.ts'
import type { PylonNode } from '../node.ts'
import { type Check, failed, ok, warning } from './check.ts'

/** The books against the mints: `ledger` compares books with books only. */
export async function checkCoins(node: PylonNode): Promise<Check[]> {
  const wallets = node.parts.wallets.peek()
  if (wallets === undefined) return []
  const audits = await wallets.auditCoins()
  if (audits.length === 0) return [ok('coins', 'No wallet holds any.')]
  return audits.map(({ owner, mintUrl, coins, asked, spent, spentSats, problem }) => {
    const wallet = walletName(node.store, owner)
    const name = `coins of ${wallet} at ${mintUrl}`
    if (problem !== undefined)
      return warning(name, `They could not be compared with the mint: ${problem}.`, 'pylon doctor, once the mint answers')
    if (spent > 0)
      return failed(
        name,
        `${spent} that the books count are spent at the mint: ${spentSats} sats are not there.`,
        `pylon wallet restore --wallet ${wallet}`,
      )
    if (asked < coins) return ok(name, `The largest ${asked} of ${coins} were compared: all are unspent at the mint.`)
    return ok(name, `${coins === 1 ? 'The only one is' : `All ${coins} are`} unspent at the mint.`)
  })
}

/** Keysets that can't be used, or end; only what is wrong is told. */
export function checkKeysets(store: Store, now: number): Check[] {
  const owners = new Map(walletOwners(store).map((owner) => [owner.pubkey, owner]))
  const setAside = listMints(store).flatMap(({ url, setAside }) =>
    setAside.length === 0
      ? []
      : [
          warning(
            `keysets of ${url}`,
            `Set aside: ${setAside.map(({ id, reason }) => `${id} (${reason})`).join('; ')}. The others are used.`,
            "Tell whoever runs the mint; coins of such a keyset can't be received or spent here.",
          ),
        ],
  )
  const old = oldCoins(store, Math.floor((now + SOON_MS) / 1000)).flatMap(
    ({ ownerPubkey, mintUrl, keysetId, active, finalExpiry, coins, sats }) => {
      const owner = owners.get(ownerPubkey)
      if (owner === undefined) return []
      const why = finalExpiry === null ? 'signs no more' : `${active ? '' : 'signs no more and '}ends at ${rfc3339(finalExpiry * 1000)}`
      return [
        warning(
          `old coins of ${walletName(store, owner)} at ${mintUrl}`,
          `${coins} of ${sats} sats are of the keyset ${keysetId}, which ${why}. They move to the active one by themselves where that costs little.`,
          finalExpiry === null
            ? 'Nothing; they can be spent as they are.'
            : 'Spend them or move them before that: pylon wallet send, pylon wallet receive',
        ),
      ]
    },
  )
  return [...setAside, ...old]
}

export function checkOwedSignatures(store: Store): Check[] {
  return listOwed(store).map(({ owner, mintUrl, owedSats, reason, createdAt, nextTryAt }) =>
    warning(
      `signatures of ${mintUrl}`,
      `Since ${rfc3339(createdAt)} it owes the wallet of ${walletName(store, owner)} ${owedSats > 0n ? `${owedSats} sats of` : ''} change that could not be taken: ${reason}.${nextTryAt === null ? '' : ' It is asked again by itself.'}`,
      `pylon wallet restore --wallet ${walletName(store, owner)}`,
    ),
  )
}

function walletName(store: Store, owner: WalletOwner): string {
  return owner.kind === 'agent' ? (getAgent(store, owner.pubkey)?.name ?? npubOf(owner.pubkey)) : owner.kind
}
