/** Mints: the allowlist with caps and health, and the counters of deterministic secrets. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Row } from '../commands.ts'
import { amount, int, intOrNull, json, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'
import type { SetAside } from './keysets.ts'

export interface MintRow {
  readonly url: string
  readonly capSats: bigint
  readonly addedAt: number
  /** NUT-06, as the mint gave it. */
  readonly info: unknown
  readonly state: 'ok' | 'down'
  readonly reason: string | null
  /** Keysets on its list that can't be used. */
  readonly setAside: readonly SetAside[]
  /** Inputs that it takes in one request, as far as it refused more. */
  readonly maxInputs: number | null
}

export const putMint = defineCommand('put_mint', (sql, p: { url: string; capSats: bigint; info: unknown; at: number }) => {
  sql(
    `INSERT INTO mints (url, cap_sats, added_at, info_json) VALUES (?, ?, ?, ?)
     ON CONFLICT (url) DO UPDATE SET cap_sats = excluded.cap_sats, info_json = excluded.info_json, state = 'ok', reason = NULL,
       max_inputs = NULL`,
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
  sql('UPDATE mints SET state = ?, reason = ? WHERE url = ?').run(p.state, p.reason, p.url)
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

function decodeMint(row: Row): MintRow {
  return {
    url: text(row, 'url'),
    capSats: amount(row, 'cap_sats'),
    addedAt: int(row, 'added_at'),
    info: json(row, 'info_json'),
    state: text(row, 'state') as MintRow['state'],
    reason: textOrNull(row, 'reason'),
    setAside: json(row, 'set_aside_json'),
    maxInputs: intOrNull(row, 'max_inputs'),
  }
}
