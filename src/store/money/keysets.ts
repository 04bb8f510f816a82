/** Keysets of mints. A mint may list a thousand: what is read of all of them leaves their keys out. */
import { defineCommand } from '../commands.ts'
import { textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Selection, table } from '../table.ts'

const INFO = {
  id: column.text(),
  mintUrl: column.text(),
  /** Listed, and signing. */
  active: column.flag(),
  inputFeePpk: column.int(),
  /** Unix seconds. */
  finalExpiry: column.orNull(column.int()),
  fetchedAt: column.int(),
}
/** Amount in sats (decimal) to public key. */
const KEYS = { keys: column.json<Readonly<Record<string, string>>>('keys_json') }
const keysets = table('mint_keysets', { ...INFO, ...KEYS })
const infos = new Selection({ ...INFO, hasKeys: column.flag() })
const withKeys = new Selection({ ...INFO, ...KEYS, hasKeys: column.flag() })
export type KeysetInfo = RowOfTable<typeof infos>
export type KeysetRow = RowOfTable<typeof withKeys>

/** A keyset of a mint's list that can't be used, and why. */
export interface SetAside {
  readonly id: string
  readonly reason: string
}

const FIELDS = `id, mint_url, active, input_fee_ppk, final_expiry, keys_json <> '{}' AS has_keys, fetched_at`

type Listed = Pick<KeysetInfo, 'id' | 'active' | 'inputFeePpk' | 'finalExpiry'>

/**
 * Takes a mint's list: what is not on it is not active any more, fees and expiries are as it says. A keyset of another mint
 * is left to that mint. Returns the ids that belong elsewhere, and whether an active one went.
 */
export const noteKeysets = defineCommand(
  'note_keysets',
  (sql, p: { mintUrl: string; keysets: readonly Listed[]; at: number }): { foreign: SetAside[]; retired: boolean } => {
    const before = new Map(infos.all(sql, `SELECT ${FIELDS} FROM mint_keysets`).map((row) => [row.id, row]))
    const mints = new Set(textsOf(sql, 'SELECT url FROM mints'))
    const foreign: SetAside[] = []
    const listed = new Set<string>()
    for (const keyset of p.keysets) {
      const row = before.get(keyset.id)
      const isElsewhere = row !== undefined && row.mintUrl !== p.mintUrl
      if (isElsewhere && mints.has(row.mintUrl)) {
        foreign.push({ id: keyset.id, reason: `it belongs to ${row.mintUrl}` })
        continue
      }
      listed.add(keyset.id)
      if (row !== undefined && !isElsewhere && !keyset.active && !differs(row, keyset)) continue
      keysets.insert(
        sql,
        { ...keyset, mintUrl: p.mintUrl, keys: {}, fetchedAt: p.at },
        `ON CONFLICT (id) DO UPDATE SET mint_url = excluded.mint_url, active = excluded.active, input_fee_ppk = excluded.input_fee_ppk,
           final_expiry = excluded.final_expiry, fetched_at = excluded.fetched_at`,
      )
    }
    const activeBefore = [...before.values()].filter((row) => row.mintUrl === p.mintUrl && row.active)
    const activeNow = new Set(p.keysets.filter((keyset) => keyset.active).map((keyset) => keyset.id))
    const gone = activeBefore.map((row) => row.id).filter((id) => !activeNow.has(id))
    for (const id of gone) if (!listed.has(id)) keysets.patch(sql, { id }, { active: false })
    return { foreign, retired: gone.length > 0 }
  },
)

const differs = (row: KeysetInfo, keyset: Listed): boolean =>
  row.active !== keyset.active || row.inputFeePpk !== keyset.inputFeePpk || row.finalExpiry !== keyset.finalExpiry

/** The keys of a keyset that was listed. */
export const putKeysetKeys = defineCommand('put_keyset_keys', (sql, p: { id: string; keys: Readonly<Record<string, string>> }) => {
  keysets.patch(sql, { id: p.id }, { keys: p.keys })
})

/** What of a mint's list can't be used; written, and true, only when it changes. */
export const putSetAside = defineCommand('put_set_aside', (sql, p: { mintUrl: string; setAside: readonly SetAside[] }): boolean => {
  const value = JSON.stringify(p.setAside)
  return sql('UPDATE mints SET set_aside_json = ? WHERE url = ? AND set_aside_json <> ?').run(value, p.mintUrl, value).changes > 0
})

export const listKeysets = (store: Store, mintUrl: string): KeysetInfo[] =>
  infos.all(store.sql, `SELECT ${FIELDS} FROM mint_keysets WHERE mint_url = ? ORDER BY id`, mintUrl)

/** Undefined where the keyset is not listed at this mint; without keys where they were not read yet. */
export const getKeyset = (store: Store, mintUrl: string, id: string): KeysetRow | undefined =>
  withKeys.get(store.sql, `SELECT ${FIELDS}, keys_json FROM mint_keysets WHERE mint_url = ? AND id = ?`, mintUrl, id)

/** The mints that keysets of these ids belong to. */
export const mintsOfKeysets = (store: Store, ids: readonly string[]): string[] => [
  ...new Set(ids.flatMap((id) => keysets.get(store.sql, { id })?.mintUrl ?? [])),
]

const oldOnes = new Selection({
  ownerPubkey: column.text(),
  mintUrl: column.text(),
  keysetId: column.text(),
  active: column.flag(),
  finalExpiry: column.orNull(column.int()),
  coins: column.int(),
  sats: column.amount(),
})
/** Free coins of one wallet in one keyset that signs no more, or soon will not. */
export type OldCoins = RowOfTable<typeof oldOnes>

/** @param before unix seconds: keysets that end by then */
export const oldCoins = (store: Store, before: number): OldCoins[] =>
  oldOnes.all(
    store.sql,
    `SELECT p.owner_pubkey, p.mint_url, p.keyset_id, k.active, k.final_expiry, count(*) AS coins, sum(p.amount_sats) AS sats
     FROM mint_keysets k CROSS JOIN proofs p INDEXED BY proofs_unspent ON p.keyset_id = k.id
     WHERE p.state = 'unspent' AND (k.active = 0 OR k.final_expiry <= ?) GROUP BY p.owner_pubkey, p.mint_url, p.keyset_id`,
    BigInt(before),
  )
