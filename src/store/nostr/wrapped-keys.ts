/** Keys of a home besides node and customer: NIP-06 accounts by number, imported secrets as ciphertext. */
import { defineCommand, type Row } from '../commands.ts'
import { int, intOrNull, text } from '../row.ts'
import type { Store } from '../store.ts'

export type WrappedKey =
  | { readonly pubkey: string; readonly account: number }
  | { readonly pubkey: string; readonly nonce: Uint8Array; readonly ciphertext: Uint8Array }

export const putWrappedKey = defineCommand('put_wrapped_key', (sql, p: { key: WrappedKey; at: number }) => {
  const sealed = 'account' in p.key ? undefined : p.key
  sql(
    'INSERT INTO wrapped_keys (pubkey, account, nonce, ciphertext, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (pubkey) DO NOTHING',
  ).run(
    p.key.pubkey,
    'account' in p.key ? BigInt(p.key.account) : null,
    sealed === undefined ? null : Buffer.from(sealed.nonce),
    sealed === undefined ? null : Buffer.from(sealed.ciphertext),
    BigInt(p.at),
  )
})

/** Only an imported one: an account is remembered. */
export const removeWrappedKey = defineCommand('remove_wrapped_key', (sql, p: { pubkey: string }) => {
  sql('DELETE FROM wrapped_keys WHERE pubkey = ? AND account IS NULL').run(p.pubkey)
})

export const listWrappedKeys = (store: Store): WrappedKey[] =>
  store.sql('SELECT pubkey, account, nonce, ciphertext FROM wrapped_keys ORDER BY pubkey').all().map(wrappedKeyOf)

function wrappedKeyOf(row: Row): WrappedKey {
  const pubkey = text(row, 'pubkey')
  if (intOrNull(row, 'account') !== null) return { pubkey, account: int(row, 'account') }
  return { pubkey, nonce: row['nonce'] as Uint8Array, ciphertext: row['ciphertext'] as Uint8Array }
}
