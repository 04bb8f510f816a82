/** Keysets of mints. A mint may list a thousand: what is read of all of them leaves their keys out. */
import { defineCommand, type Row } from '../commands.ts'
import { amount, int, intOrNull, json, text } from '../row.ts'
import type { Store } from '../store.ts'

export interface KeysetInfo {
  readonly id: string
  readonly mintUrl: string
  /** Listed, and signing. */
  readonly active: boolean
  readonly inputFeePpk: number
  /** Unix seconds. */
  readonly finalExpiry: number | null
  readonly hasKeys: boolean
  readonly fetchedAt: number
}

export interface KeysetRow extends KeysetInfo {
  /** Amount in sats (decimal) to public key. */
  readonly keys: Readonly<Record<string, string>>
}

/** A keyset of a mint's list that can't be used, and why. */
export interface SetAside {
  readonly id: string
  readonly reason: string
}

type Listed = Pick<KeysetInfo, 'id' | 'active' | 'inputFeePpk' | 'finalExpiry'>

/**
 * Takes a mint's list: what is not on it is not active any more, fees and expiries are as it says. A keyset of another mint
 * is left to that mint. Returns the ids that belong elsewhere, and whether an active one went.
 */
export const noteKeysets = defineCommand(
  'note_keysets',
  (sql, p: { mintUrl: string; keysets: readonly Listed[]; at: number }): { foreign: SetAside[]; retired: boolean } => {
    const before = new Map(
      sql('SELECT id, mint_url, active, input_fee_ppk, final_expiry FROM mint_keysets')
        .all()
        .map((row) => [text(row, 'id'), row]),
    )
    const mints = new Set(
      sql('SELECT url FROM mints')
        .all()
        .map((row) => text(row, 'url')),
    )
    const foreign: SetAside[] = []
    const listed = new Set<string>()
    for (const keyset of p.keysets) {
      const row = before.get(keyset.id)
      const isElsewhere = row !== undefined && text(row, 'mint_url') !== p.mintUrl
      if (isElsewhere && mints.has(text(row, 'mint_url'))) {
        foreign.push({ id: keyset.id, reason: `it belongs to ${text(row, 'mint_url')}` })
        continue
      }
      listed.add(keyset.id)
      if (row !== undefined && !isElsewhere && !keyset.active && !differs(row, keyset)) continue
      const expiry = keyset.finalExpiry === null ? null : BigInt(keyset.finalExpiry)
      sql(
        `INSERT INTO mint_keysets (id, mint_url, active, input_fee_ppk, final_expiry, keys_json, fetched_at) VALUES (?, ?, ?, ?, ?, '{}', ?)
         ON CONFLICT (id) DO UPDATE SET mint_url = excluded.mint_url, active = excluded.active, input_fee_ppk = excluded.input_fee_ppk,
           final_expiry = excluded.final_expiry, fetched_at = excluded.fetched_at`,
      ).run(keyset.id, p.mintUrl, keyset.active ? 1n : 0n, BigInt(keyset.inputFeePpk), expiry, BigInt(p.at))
    }
    const activeBefore = [...before.values()].filter((row) => text(row, 'mint_url') === p.mintUrl && int(row, 'active') === 1)
    const activeNow = new Set(p.keysets.filter((keyset) => keyset.active).map((keyset) => keyset.id))
    const gone = activeBefore.map((row) => text(row, 'id')).filter((id) => !activeNow.has(id))
    for (const id of gone) if (!listed.has(id)) sql('UPDATE mint_keysets SET active = 0 WHERE id = ?').run(id)
    return { foreign, retired: gone.length > 0 }
  },
)

function differs(row: Row, keyset: Listed): boolean {
  return (
    (int(row, 'active') === 1) !== keyset.active ||
    int(row, 'input_fee_ppk') !== keyset.inputFeePpk ||
    intOrNull(row, 'final_expiry') !== keyset.finalExpiry
  )
}

/** The keys of a keyset that was listed. */
export const putKeysetKeys = defineCommand('put_keyset_keys', (sql, p: { id: string; keys: Readonly<Record<string, string>> }) => {
  sql('UPDATE mint_keysets SET keys_json = ? WHERE id = ?').run(JSON.stringify(p.keys), p.id)
})

/** What of a mint's list can't be used; written, and true, only when it changes. */
export const putSetAside = defineCommand('put_set_aside', (sql, p: { mintUrl: string; setAside: readonly SetAside[] }): boolean => {
  const value = JSON.stringify(p.setAside)
  return sql('UPDATE mints SET set_aside_json = ? WHERE url = ? AND set_aside_json <> ?').run(value, p.mintUrl, value).changes > 0
})

const INFO = `id, mint_url, active, input_fee_ppk, final_expiry, keys_json <> '{}' AS has_keys, fetched_at`

export function listKeysets(store: Store, mintUrl: string): KeysetInfo[] {
  return store.sql(`SELECT ${INFO} FROM mint_keysets WHERE mint_url = ? ORDER BY id`).all(mintUrl).map(decodeInfo)
}

/** Undefined where the keyset is not listed at this mint; without keys where they were not read yet. */
export function getKeyset(store: Store, mintUrl: string, id: string): KeysetRow | undefined {
  const row = store.sql(`SELECT ${INFO}, keys_json FROM mint_keysets WHERE mint_url = ? AND id = ?`).get(mintUrl, id)
  return row === undefined ? undefined : { ...decodeInfo(row), keys: json(row, 'keys_json') }
}

/** The mints that keysets of these ids belong to. */
export function mintsOfKeysets(store: Store, ids: readonly string[]): string[] {
  const find = store.sql('SELECT mint_url FROM mint_keysets WHERE id = ?')
  return [
    ...new Set(
      ids.flatMap((id) => {
        const row = find.get(id)
        return row === undefined ? [] : [text(row, 'mint_url')]
      }),
    ),
  ]
}

/** Free coins of one wallet in one keyset that signs no more, or soon will not. */
export interface OldCoins {
  readonly ownerPubkey: string
  readonly mintUrl: string
  readonly keysetId: string
  readonly active: boolean
  readonly finalExpiry: number | null
  readonly coins: number
  readonly sats: bigint
}

/** @param before unix seconds: keysets that end by then */
export function oldCoins(store: Store, before: number): OldCoins[] {
  return store
    .sql(
      `SELECT p.owner_pubkey, p.mint_url, p.keyset_id, k.active, k.final_expiry, count(*) AS coins, sum(p.amount_sats) AS sats
       FROM proofs p JOIN mint_keysets k ON k.id = p.keyset_id
       WHERE p.state = 'unspent' AND (k.active = 0 OR k.final_expiry <= ?) GROUP BY p.owner_pubkey, p.mint_url, p.keyset_id`,
    )
    .all(BigInt(before))
    .map((row) => ({
      ownerPubkey: text(row, 'owner_pubkey'),
      mintUrl: text(row, 'mint_url'),
      keysetId: text(row, 'keyset_id'),
      active: int(row, 'active') === 1,
      finalExpiry: intOrNull(row, 'final_expiry'),
      coins: int(row, 'coins'),
      sats: amount(row, 'sats'),
    }))
}

function decodeInfo(row: Row): KeysetInfo {
  return {
    id: text(row, 'id'),
    mintUrl: text(row, 'mint_url'),
    active: int(row, 'active') === 1,
    inputFeePpk: int(row, 'input_fee_ppk'),
    finalExpiry: intOrNull(row, 'final_expiry'),
    hasKeys: int(row, 'has_keys') === 1,
    fetchedAt: int(row, 'fetched_at'),
  }
}
