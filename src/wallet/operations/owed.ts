/** What a mint signed for us in a way that we could not use: asked for again (NUT-09), soon at first, then rarer, and by every restore. */
import { accountOwner, type WalletOwner } from '../../base/accounts.ts'
import { sats } from '../../base/amounts.ts'
import { backoffMs } from '../../base/backoff.ts'
import { all } from '../../store/commands.ts'
import { deleteOwed, getOwed, listOwed, type OwedRow, putOwed } from '../../store/money/owed-signatures.ts'
import { adoptProofs, knownYs } from '../../store/money/proof-books.ts'
import { newId, type WalletContext } from '../context.ts'
import type { BlindedOutput } from '../ecash/crypto.ts'
import { proofRow, unblindEach } from './unblinding.ts'

const FIRST_RETRY_MS = 5000
const RETRIES = { minMs: 2 * FIRST_RETRY_MS, maxMs: 6 * 3_600_000 }
/** After that only a restore asks. */
const MAX_TRIES = 40

export const firstOwedTry = (at: number): number => at + FIRST_RETRY_MS

/** Asks again for what one operation lacks. Returns the sats that came. Never rejects for what the mint does. */
export async function collectOwed(context: WalletContext, operationId: string): Promise<bigint> {
  const { store, clock, mints, crypto } = context
  const row = getOwed(store, operationId)
  if (row === undefined) return 0n
  const outputs = row.outputs as BlindedOutput[]
  const ys = await crypto.run('ys', { secrets: outputs.map((output) => output.secret) })
  const here = knownYs(store, ys)
  const open = outputs.filter((_, i) => !here.has(ys[i] ?? ''))
  const reply = await mints.client(row.mintUrl).restore(open)
  if (reply.kind !== 'ok') return later(context, row, open, row.owedSats, reply.kind === 'unknown' ? reply.reason : reply.detail)
  const { proofs, faults } = await unblindEach(
    context,
    row.mintUrl,
    open.map((output, i) => ({ output, signature: reply.value[i] })),
  )
  const states = await mints.client(row.mintUrl).checkStates(proofs.map(({ proof }) => proof.y))
  if (states.kind !== 'ok') return later(context, row, open, row.owedSats, 'the mint does not say whether they are spent')
  const fresh = proofs
    .filter((_, i) => states.value[i] !== 'SPENT')
    .map(({ proof }) => proofRow(proof, { ownerPubkey: row.owner.pubkey, mintUrl: row.mintUrl }))
  const at = clock.now()
  const entry = { entryId: `restore:${newId(context)}`, cause: { type: 'owner', id: 'restore' }, at, memo: 'signed late' } as const
  const adopt = adoptProofs({ ...entry, accountOwner: accountOwner(row.owner), mintUrl: row.mintUrl, proofs: fresh })
  if (faults.length === 0) {
    const [got] = await store.write(all(adopt, deleteOwed({ operationId })))
    return got
  }
  const got = await store.write(adopt)
  const owed = faults.reduce((sum, fault) => sum + BigInt(fault.sats), 0n)
  await later(
    context,
    row,
    faults.map((fault) => fault.output),
    owed,
    faults[0]?.reason ?? '',
  )
  return got
}

async function later(
  { store, clock, random }: WalletContext,
  row: OwedRow,
  outputs: readonly BlindedOutput[],
  owedSats: bigint,
  reason: string,
): Promise<bigint> {
  const tries = row.tries + 1
  const nextTryAt = tries >= MAX_TRIES ? null : clock.now() + backoffMs(RETRIES, tries, random)
  await store.write(putOwed({ ...row, outputs, owedSats, reason: reason.slice(0, 300), tries, nextTryAt }))
  return 0n
}

/** Of one wallet at one mint: what came, and what still can't be used. */
export async function collectAllOwed(
  context: WalletContext,
  owner: WalletOwner,
  mintUrl: string,
): Promise<{ found: bigint; problems: string[] }> {
  const isTheirs = (row: OwedRow) => row.owner.pubkey === owner.pubkey && row.mintUrl === mintUrl
  let found = 0n
  for (const { operationId } of listOwed(context.store).filter(isTheirs)) found += await collectOwed(context, operationId)
  const left = listOwed(context.store).filter(isTheirs)
  return {
    found,
    problems: left.map((row) => `${mintUrl} owes ${sats(row.owedSats)} sats of a payment whose signatures can't be used: ${row.reason}`),
  }
}
