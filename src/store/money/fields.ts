/** Fields that several tables of money have. */
import type { WalletOwner } from '../../base/accounts.ts'
import { column } from '../table.ts'
import type { Cause } from './ledger.ts'

export const walletOwner = column.group({ kind: column.text<WalletOwner['kind']>('owner_kind'), pubkey: column.text('owner_pubkey') })

export const causeOfRow = column.group({ type: column.text<Cause['type']>('cause_type'), id: column.text('cause_id') })
