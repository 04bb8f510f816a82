/** Invoices that Lightning addresses gave, each stored under the key of its payment before it is paid. */
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const addressInvoices = table('address_invoices', {
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  invoice: column.text(),
  /** Who gave it; null in rows of older versions. */
  host: column.orNull(column.text()),
  createdAt: column.int(),
})
type AddressInvoiceRow = RowOfTable<typeof addressInvoices>

/** The first invoice stays: it alone may be paid under this key. */
export const insertAddressInvoice = defineCommand('insert_address_invoice', (sql, row: AddressInvoiceRow) => {
  addressInvoices.insert(sql, row, 'ON CONFLICT DO NOTHING')
})

export const getAddressInvoice = (store: Store, idempotencyKey: string): AddressInvoiceRow | undefined =>
  addressInvoices.get(store.sql, { idempotencyKey })
