/** Mints: the allowlist with caps and health, their keysets, and the counters of deterministic secrets. */
import { PylonError } from '../base/errors.ts'
import { defineCommand, type Row } from './commands.ts'
import { amount, int, intOrNull, json, text, textOrNull } from './row.ts'
import type { Store } from './store.ts'

export interface MintRow {
  readonly url: string
  readonly capSats: bigint
  readonly addedAt: number
  /** NUT-06, as the mint gave it. */
  readonly info: unknown
  readonly state: 'ok' | 'down'
  readonly reason: string | null
}

export interface KeysetRow {
  readonly id: string
  readonly mintUrl: string
  readonly active: boolean
  readonly inputFeePpk: number
  /** Unix seconds. */
  readonly finalExpiry: number | null
  /** Amount in sats (decimal) to public key. */
  readonly keys: Readonly<Record<string, string>>
  readonly fetchedAt: number
}

export const putMint = defineCommand('put_mint', (sql, p: { url: string; capSats: bigint; info: unknown; at: number }) => {
  sql(
    `INSERT INTO mints (url, cap_sats, added_at, info_json) VALUES (?, ?, ?, ?)
     ON CONFLICT (url) DO UPDATE SET cap_sats = excluded.cap_sats, info_json = excluded.info_json, state = 'ok', reason = NULL`,
  ).run(p.url, p.capSats, BigInt(p.at), JSON.stringify(p.info))
})

/** @throws mint_in_use while proofs, open operations or unsettled invoices are there. */
export const deleteMint = defineCommand('delete_mint', (sql, p: { url: string }) => {
  const inUse = sql(
    `SELECT EXISTS (SELECT 1 FROM proofs WHERE mint_url = @url AND state IN ('unspent', 'reserved'))
         OR EXISTS (SELECT 1 FROM operations WHERE mint_url = @url AND state IN ('prepared', 'submitted', 'unknown'))
         OR EXISTS (SELECT 1 FROM mint_quotes WHERE mint_url = @url AND state IN ('unpaid', 'paid')) AS used`,
  ).get({ url: p.url })
  if (inUse !== undefined && int(inUse, 'used') === 1) {
    throw new PylonError('mint_in_use', `${p.url} still holds sats, or an invoice or payment of this node is open there: move them first.`)
  }
  sql('DELETE FROM mints WHERE url = ?').run(p.url)
})

export const setMintHealth = defineCommand('set_mint_health', (sql, p: { url: string; state: MintRow['state']; reason: string | null }) => {
  sql('UPDATE mints SET state = ?, reason = ? WHERE url = ?').run(p.state, p.reason, p.url)
})

/** @throws mint_incompatible when another mint uses the same keyset id. */
export const putKeyset = defineCommand('put_keyset', (sql, p: KeysetRow) => {
  const other = sql('SELECT mint_url FROM mint_keysets WHERE id = ? AND mint_url <> ?').get(p.id, p.mintUrl)
  if (other !== undefined) {
    throw new PylonError('mint_incompatible', `${p.mintUrl} claims the keyset ${p.id}, which belongs to ${text(other, 'mint_url')}.`)
  }
  sql(
    `INSERT INTO mint_keysets (id, mint_url, active, input_fee_ppk, final_expiry, keys_json, fetched_at) VALUES (?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET active = excluded.active, input_fee_ppk = excluded.input_fee_ppk, fetched_at = excluded.fetched_at`,
  ).run(
    p.id,
    p.mintUrl,
    p.active ? 1n : 0n,
    BigInt(p.inputFeePpk),
    p.finalExpiry === null ? null : BigInt(p.finalExpiry),
    JSON.stringify(p.keys),
    BigInt(p.fetchedAt),
  )
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
export function nextCounter(store: Store, p: { ownerPubkey: string; keysetId: string }): number {
  const row = store.sql('SELECT next FROM wallet_counters WHERE owner_pubkey = ? AND keyset_id = ?').get(p.ownerPubkey, p.keysetId)
  return row === undefined ? 0 : int(row, 'next')
}

export const putWalletOwner = defineCommand('put_wallet_owner', (sql, p: { pubkey: string; kind: string; accountOwner: string }) => {
  sql('INSERT INTO wallet_owners (pubkey, kind, account_owner) VALUES (?, ?, ?) ON CONFLICT DO NOTHING').run(
    p.pubkey,
    p.kind,
    p.accountOwner,
  )
})

export function listMints(store: Store): MintRow[] {
  return store.sql('SELECT * FROM mints ORDER BY added_at, url').all().map(decodeMint)
}

export function getMint(store: Store, url: string): MintRow | undefined {
  const row = store.sql('SELECT * FROM mints WHERE url = ?').get(url)
  return row === undefined ? undefined : decodeMint(row)
}

export function listKeysets(store: Store, mintUrl: string): KeysetRow[] {
  return store.sql('SELECT * FROM mint_keysets WHERE mint_url = ? ORDER BY id').all(mintUrl).map(decodeKeyset)
}

function decodeMint(row: Row): MintRow {
  return {
    url: text(row, 'url'),
    capSats: amount(row, 'cap_sats'),
    addedAt: int(row, 'added_at'),
    info: json(row, 'info_json'),
    state: text(row, 'state') as MintRow['state'],
    reason: textOrNull(row, 'reason'),
  }
}

function decodeKeyset(row: Row): KeysetRow {
  return {
    id: text(row, 'id'),
    mintUrl: text(row, 'mint_url'),
    active: int(row, 'active') === 1,
    inputFeePpk: int(row, 'input_fee_ppk'),
    finalExpiry: intOrNull(row, 'final_expiry'),
    keys: json(row, 'keys_json'),
    fetchedAt: int(row, 'fetched_at'),
  }
}
