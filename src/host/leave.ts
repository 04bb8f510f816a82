/** Empties the wallet of an agent that leaves. */
import { type Sats, sats } from '../base/amounts.ts'
import { isPylonError } from '../base/errors.ts'
import { randomUuid } from '../base/random.ts'
import type { AgentRow } from '../store/agents/agents.ts'
import { leaveKey } from '../store/keys.ts'
import { type HostDeps, ownerOf } from './parts.ts'

/**
 * Mint by mint: the input fee comes off what is moved; it is not known beforehand, so less is tried until it fits. What stays
 * is not worth its own fee. @throws as Wallets.transfer does, but for insufficient_funds
 */
export async function moveFundsToNode(
  deps: Pick<HostDeps, 'scope' | 'keyring' | 'wallets'>,
  agent: Pick<AgentRow, 'pubkey'>,
): Promise<Sats> {
  const { wallets, keyring } = deps
  const node = { kind: 'node', pubkey: keyring.node().pubkey } as const
  const wallet = wallets.of(ownerOf(agent))
  const move = async (amountSats: bigint): Promise<bigint> => {
    try {
      await wallets.transfer(ownerOf(agent), node, sats(amountSats), leaveKey(agent.pubkey, randomUuid(deps.scope.random)))
      return amountSats
    } catch (error) {
      if (isPylonError(error, 'insufficient_funds')) return 0n
      throw error
    }
  }
  let total = 0n
  for (;;) {
    const { balanceSats, mints } = wallet.balance()
    const most = mints.map((mint) => mint.balanceSats).sort((a, b) => (a < b ? 1 : -1))[0] ?? balanceSats
    let moved = 0n
    for (let fee = 0n; fee < most && moved === 0n; fee = fee === 0n ? 1n : 2n * fee) moved = await move(most - fee)
    if (moved === 0n) return sats(total)
    total += moved
  }
}
