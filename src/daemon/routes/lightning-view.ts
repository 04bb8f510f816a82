/** The owner's own Lightning wallet as answers show it: as it was last seen. */
import { msatsToSatsDown } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { connectedNwcWallet, countNwcInvoices, openNwcPayments } from '../../store/money/nwc-wallets.ts'
import type { ReadServices } from '../services.ts'

/** Null where none is connected. */
export function lightningView(services: Pick<ReadServices, 'store' | 'config'>) {
  const { store } = services
  const row = connectedNwcWallet(store)
  if (row === undefined) return null
  const { id, relays, info, lud16, balance, state, reason } = row
  return {
    ...{ id, relays: [...relays], methods: [...info.methods], lud16, state, reason },
    balance_sats: balance === null ? null : msatsToSatsDown(balance.msats),
    balance_at: balance === null ? null : rfc3339(balance.at),
    receives: services.config().wallet.receive_by === 'nwc',
    open_payments: openNwcPayments(store).length,
    unpaid_invoices: countNwcInvoices(store, 'unpaid', false),
  }
}
