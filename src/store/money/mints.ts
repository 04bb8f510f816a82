/** Mints: the allowlist with caps and health, and the counters of deterministic secrets. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand } from '../commands.ts'
import { amount, countOf, int, text } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Selection, table } from '../table.ts'
import type { SetAside } from './keysets.ts'

const mints = table('mints', {
  url: column.text(),
  capSats: column.amount(),
  addedAt: column.int(),
  /** NUT-06, as the mint gave it. */
  info: column.json<unknown>('info_json'),
  state: column.text<'ok' | 'down'>(),
  reason: column.orNull(column.text()),
  /** Keysets on its list that can't be used. */
  setAside: column.json<readonly SetAside[]>('set_aside_json'),
  /** Inputs that it takes in one request, as far as it refused more. */
  maxInputs: column.orNull(column.int()),
})
export type MintRow = RowOfTable<typeof mints>
export type ListedMint = Pick<MintRow, 'url' | 'capSats' | 'addedAt'>

const healths = new Selection({ url: column.text(), state: column.text<MintRow['state']>(), reason: column.orNull(column.text()) })
type MintHealth = RowOfTable<typeof healths>

export const putMint = defineCommand(
  'put_mint',
  (sql, { at, ...mint }: Pick<MintRow, 'url' | 'capSats' | 'info'> & { readonly at: number }) => {
    const isKnown = mints.patch(sql, { url: mint.url }, { ...mint, state: 'ok', reason: null, maxInputs: null })
    if (!isKnown) mints.insert(sql, { ...mint, addedAt: at })
  },
)

export const setMintCap = defineCommand('set_mint_cap', (sql, p: { url: string; capSats: bigint }) => {
  mints.patch(sql, { url: p.url }, { capSats: p.capSats })
})

/** @throws mint_in_use while proofs, open operations or unsettled invoices are there. */
export const deleteMint = defineCommand('delete_mint', (sql, p: { url: string }) => {
  const inUse = sql(
    `SELECT EXISTS (SELECT 1 FROM proofs WHERE mint_url = @url AND state IN ('unspent', 'reserved'))
         OR EXISTS (SELECT 1 FROM operations WHERE mint_url = @url AND state IN ('prepared', 'submitted', 'unknown'))
         OR EXISTS (SELECT 1 FROM mint_quotes WHERE mint_url = @url AND state IN ('unpaid', 'paid'))
         OR EXISTS (SELECT 1 FROM purse_moves WHERE (from_url = @url OR to_url = @url) AND next_try_at IS NOT NULL) AS used`,
  ).get({ url: p.url })
  if (inUse !== undefined && int(inUse, 'used') === 1) {
    throw new PylonError(
      'mint_in_use',
      `${p.url} still holds sats, or an invoice or payment of this node is open there: move them first. If the mint itself has moved: pylon wallet mints move ${p.url} NEW`,
    )
  }
  sql('DELETE FROM mint_keysets WHERE mint_url = ?').run(p.url)
  sql('DELETE FROM mint_former_urls WHERE mint_url = ?').run(p.url)
  sql('DELETE FROM mints WHERE url = ?').run(p.url)
})

export const setMintHealth = defineCommand('set_mint_health', (sql, p: { url: string; state: MintRow['state']; reason: string | null }) => {
  mints.patch(sql, { url: p.url }, { state: p.state, reason: p.reason })
})

/** Remembers that a mint refused a request for its size; the smallest counts, until it is added again. */
export const limitInputs = defineCommand('limit_inputs', (sql, p: { url: string; maxInputs: number }) => {
  sql('UPDATE mints SET max_inputs = min(coalesce(max_inputs, ?), ?) WHERE url = ?').run(BigInt(p.maxInputs), BigInt(p.maxInputs), p.url)
})

/** Takes `count` fresh counters for good and returns the first: committed before any output made of them leaves. */
export const reserveCounters = defineCommand(
  'reserve_counters',
  (sql, p: { ownerPubkey: string; keysetId: string; count: number }): number => {
    const row = sql('SELECT next FROM wallet_counters WHERE owner_pubkey = ? AND keyset_id = ?').get(p.ownerPubkey, p.keysetId)
    const first = row === undefined ? 0 : int(row, 'next')
    sql(
      `INSERT INTO wallet_counters (owner_pubkey, keyset_id, next) VALUES (?, ?, ?)
       ON CONFLICT (owner_pubkey, keyset_id) DO UPDATE SET next = excluded.next`,
    ).run(p.ownerPubkey, p.keysetId, BigInt(first + p.count))
    return first
  },
)

/** Moves a counter up to `next`; never back. */
export const raiseCounter = defineCommand('raise_counter', (sql, p: { ownerPubkey: string; keysetId: string; next: number }) => {
  sql(
    `INSERT INTO wallet_counters (owner_pubkey, keyset_id, next) VALUES (?, ?, ?)
     ON CONFLICT (owner_pubkey, keyset_id) DO UPDATE SET next = max(next, excluded.next)`,
  ).run(p.ownerPubkey, p.keysetId, BigInt(p.next))
})

/** The first counter that was never taken. */
export const nextCounter = (store: Store, p: { ownerPubkey: string; keysetId: string }): number =>
  countOf(store.sql, 'SELECT next FROM wallet_counters WHERE owner_pubkey = ? AND keyset_id = ?', p.ownerPubkey, p.keysetId)

export const putWalletOwner = defineCommand('put_wallet_owner', (sql, p: { pubkey: string; kind: string; accountOwner: string }) => {
  sql('INSERT INTO wallet_owners (pubkey, kind, account_owner) VALUES (?, ?, ?) ON CONFLICT DO NOTHING').run(
    p.pubkey,
    p.kind,
    p.accountOwner,
  )
})

export const listMints = (store: Store): MintRow[] => mints.all(store.sql, 'ORDER BY added_at, url')

/** As `listMints`, without what mints say of themselves: for whoever asks often. */
export const listedMints = (store: Store): ListedMint[] =>
  store
    .sql('SELECT url, cap_sats, added_at FROM mints ORDER BY added_at, url')
    .all()
    .map((row) => ({ url: text(row, 'url'), capSats: amount(row, 'cap_sats'), addedAt: int(row, 'added_at') }))

/** How each is, in the order of `listMints`, without what it says of itself. */
export const mintHealths = (store: Store): MintHealth[] =>
  healths.all(store.sql, 'SELECT url, state, reason FROM mints ORDER BY added_at, url')

export const getMint = (store: Store, url: string): MintRow | undefined => mints.get(store.sql, { url })
