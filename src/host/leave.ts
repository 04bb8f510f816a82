/** Empties the wallet of an agent that leaves. */
import { randomUUID } from 'node:crypto'
import { sats } from '../base/amounts.ts'
import { isPylonError } from '../base/errors.ts'
import type { AgentRow } from '../store/agents.ts'
import { type HostDeps, ownerOf } from './parts.ts'

/** The most that moving everything out of a mint may leave behind for its input fee. */
const MAX_SWEEP_FEE_SATS = 20n

/** Mint by mint: the input fee comes off what is moved; it is not known beforehand, so less is tried until it fits. */
export async function moveFundsToNode(deps: Pick<HostDeps, 'keyring' | 'wallets'>, agent: AgentRow): Promise<bigint> {
  const { wallets, keyring } = deps
  const node = { kind: 'node', pubkey: keyring.node().pubkey } as const
  const wallet = wallets.of(ownerOf(agent))
  let moved = 0n
  for (let round = 0; round <= wallets.mints().length; round++) {
    const { balanceSats, mints } = wallet.balance()
    const most = mints.map((mint) => mint.balanceSats).sort((a, b) => (a < b ? 1 : -1))[0] ?? balanceSats
    for (let fee = 0n; fee < most && fee <= MAX_SWEEP_FEE_SATS; fee++) {
      const amount = sats(most - fee)
      try {
        await wallets.transfer(ownerOf(agent), node, amount, `agent:${agent.pubkey}:leave:${randomUUID()}`)
        moved += amount
        break
      } catch (error) {
        if (!isPylonError(error, 'insufficient_funds')) throw error
      }
    }
  }
  return moved
}
