/** Zaps on their way out, fixed before they are paid, and the LNURL addresses that take zaps in. */
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const zapSends = table('zap_sends', {
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  /** The signed 9734 as it is sent: the invoice commits to these very bytes. */
  zapRequest: column.text(),
  invoice: column.orNull(column.text()),
  /** What is worth knowing of it, for the owner. */
  note: column.orNull(column.text()),
  createdAt: column.int(),
})
export type ZapSendRow = RowOfTable<typeof zapSends>

const addresses = table('lnurl_addresses', {
  ownerPubkey: column.text(),
  baseUrl: column.text(),
  name: column.text(),
  lnurl: column.text(),
  callback: column.text(),
  lud16: column.orNull(column.text()),
  mintUrl: column.text(),
  createdAt: column.int(),
})
export type LnurlAddressRow = RowOfTable<typeof addresses>

/** The first request under a key stays; a second one does nothing. */
export const insertZapSend = defineCommand(
  'insert_zap_send',
  (sql, { at, ...zap }: { idempotencyKey: string; requestDigest: string; zapRequest: string; at: number }) => {
    zapSends.insert(sql, { ...zap, createdAt: at }, 'ON CONFLICT DO NOTHING')
  },
)

/** The first invoice stays: it alone may be paid under this key. */
export const setZapInvoice = defineCommand(
  'set_zap_invoice',
  (sql, p: { idempotencyKey: string; invoice: string; note: string | null }) => {
    zapSends.patch(sql, { idempotencyKey: p.idempotencyKey, invoice: null }, { invoice: p.invoice, note: p.note })
  },
)

export const getZapSend = (store: Store, idempotencyKey: string): ZapSendRow | undefined => zapSends.get(store.sql, { idempotencyKey })

export const putLnurlAddress = defineCommand('put_lnurl_address', (sql, { createdAt, ...address }: LnurlAddressRow) => {
  if (!addresses.patch(sql, { ownerPubkey: address.ownerPubkey }, address)) addresses.insert(sql, { ...address, createdAt })
})

export const getLnurlAddress = (store: Store, ownerPubkey: string): LnurlAddressRow | undefined => addresses.get(store.sql, { ownerPubkey })

export const listLnurlAddresses = (store: Store): LnurlAddressRow[] => addresses.all(store.sql, 'ORDER BY created_at')

const splits = table('zap_splits', {
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  /** Sats are JSON integers. */
  parts: column.json<readonly ZapPartRow[]>('parts_json'),
  createdAt: column.int(),
})

interface ZapPartRow {
  readonly recipient: string
  readonly amountSats: number
  /** Of its payment. */
  readonly key: string
}

/** The first shares under a key stay. */
export const insertZapSplit = defineCommand('insert_zap_split', (sql, split: RowOfTable<typeof splits>) => {
  splits.insert(sql, split, 'ON CONFLICT DO NOTHING')
})

export const getZapSplit = (store: Store, idempotencyKey: string): RowOfTable<typeof splits> | undefined =>
  splits.get(store.sql, { idempotencyKey })
