/** Zaps on their way out, fixed before they are paid, and the LNURL addresses that take zaps in. */
import { defineCommand, type Row } from '../commands.ts'
import { text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export interface ZapSendRow {
  readonly idempotencyKey: string
  readonly requestDigest: string
  /** The signed 9734 as it is sent: the invoice commits to these very bytes. */
  readonly zapRequest: string
  readonly invoice: string | null
  /** What is worth knowing of it, for the owner. */
  readonly note: string | null
}

export interface LnurlAddressRow {
  readonly ownerPubkey: string
  readonly baseUrl: string
  readonly name: string
  readonly lnurl: string
  readonly callback: string
  readonly lud16: string | null
  readonly mintUrl: string
}

/** The first request under a key stays; a second one does nothing. */
export const insertZapSend = defineCommand(
  'insert_zap_send',
  (sql, p: { idempotencyKey: string; requestDigest: string; zapRequest: string; at: number }) => {
    sql('INSERT INTO zap_sends (idempotency_key, request_digest, zap_request, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING').run(
      p.idempotencyKey,
      p.requestDigest,
      p.zapRequest,
      BigInt(p.at),
    )
  },
)

/** The first invoice stays: it alone may be paid under this key. */
export const setZapInvoice = defineCommand(
  'set_zap_invoice',
  (sql, p: { idempotencyKey: string; invoice: string; note: string | null }) => {
    sql('UPDATE zap_sends SET invoice = ?, note = ? WHERE idempotency_key = ? AND invoice IS NULL').run(p.invoice, p.note, p.idempotencyKey)
  },
)

export function getZapSend(store: Store, idempotencyKey: string): ZapSendRow | undefined {
  const row = store.sql('SELECT * FROM zap_sends WHERE idempotency_key = ?').get(idempotencyKey)
  if (row === undefined) return undefined
  return {
    idempotencyKey,
    requestDigest: text(row, 'request_digest'),
    zapRequest: text(row, 'zap_request'),
    invoice: textOrNull(row, 'invoice'),
    note: textOrNull(row, 'note'),
  }
}

export const putLnurlAddress = defineCommand('put_lnurl_address', (sql, p: LnurlAddressRow & { at: number }) => {
  sql(
    `INSERT INTO lnurl_addresses (owner_pubkey, base_url, name, lnurl, callback, lud16, mint_url, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (owner_pubkey) DO UPDATE SET base_url = excluded.base_url, name = excluded.name, lnurl = excluded.lnurl,
       callback = excluded.callback, lud16 = excluded.lud16, mint_url = excluded.mint_url`,
  ).run(p.ownerPubkey, p.baseUrl, p.name, p.lnurl, p.callback, p.lud16, p.mintUrl, BigInt(p.at))
})

export function getLnurlAddress(store: Store, ownerPubkey: string): LnurlAddressRow | undefined {
  const row = store.sql('SELECT * FROM lnurl_addresses WHERE owner_pubkey = ?').get(ownerPubkey)
  return row === undefined ? undefined : decode(row)
}

export function listLnurlAddresses(store: Store): LnurlAddressRow[] {
  return store.sql('SELECT * FROM lnurl_addresses ORDER BY created_at').all().map(decode)
}

function decode(row: Row): LnurlAddressRow {
  return {
    ownerPubkey: text(row, 'owner_pubkey'),
    baseUrl: text(row, 'base_url'),
    name: text(row, 'name'),
    lnurl: text(row, 'lnurl'),
    callback: text(row, 'callback'),
    lud16: textOrNull(row, 'lud16'),
    mintUrl: text(row, 'mint_url'),
  }
}
