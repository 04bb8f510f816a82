/** Who has an address at the LNURL server, what was paid to it, and which receipts are still to be published. */
import type { SandboxDatabase } from '../database.ts'

export interface Address {
  readonly name: string
  readonly pubkey: string
  readonly quote_pubkey: string
}

export interface DueReceipt {
  readonly quoteId: string
  /** The signed receipt, where it was made before. */
  readonly receipt: string | null
  readonly zapRequest: string
  readonly bolt11: string
  readonly preimage: string
  readonly paidAt: number
}

export class Addresses {
  readonly #database: SandboxDatabase

  constructor(database: SandboxDatabase) {
    this.#database = database
  }

  byName(name: string): Address | undefined {
    return this.#database.sql('SELECT * FROM addresses WHERE name = ?').get(name) as Address | undefined
  }

  /** Gives or renames the address of a key; false when the name belongs to another one. */
  register(address: Address): boolean {
    return this.#database.transaction(() => {
      const holder = this.byName(address.name)
      if (holder !== undefined && holder.pubkey !== address.pubkey) return false
      this.#database
        .sql(
          `INSERT INTO addresses (name, pubkey, quote_pubkey) VALUES (?, ?, ?)
           ON CONFLICT (pubkey) DO UPDATE SET name = excluded.name, quote_pubkey = excluded.quote_pubkey`,
        )
        .run(address.name, address.pubkey, address.quote_pubkey)
      return true
    })
  }

  /** False when the authorization was used before. */
  useAuthorization(id: string, expiresAt: number, nowSeconds: number): boolean {
    this.#database.sql('DELETE FROM seen_authorizations WHERE expires_at < ?').run(nowSeconds)
    return this.#database.sql('INSERT OR IGNORE INTO seen_authorizations (id, expires_at) VALUES (?, ?)').run(id, expiresAt).changes === 1
  }

  addPayment(quoteId: string, payment: { pubkey: string; zapRequest: string | undefined; comment: string }): void {
    this.#database
      .sql('INSERT INTO address_payments (quote_id, pubkey, zap_request, comment) VALUES (?, ?, ?, ?)')
      .run(quoteId, payment.pubkey, payment.zapRequest ?? null, payment.comment)
  }

  /** The quotes of a key that are paid and whose ecash it has not minted yet, oldest first. */
  paidQuotes(pubkey: string) {
    const rows = this.#database
      .sql(
        `SELECT q.id, q.amount, q.request, q.paid_at, q.pubkey, p.zap_request, p.comment
         FROM address_payments p JOIN mint_quotes q ON q.id = p.quote_id
         WHERE p.pubkey = ? AND q.state = 'PAID' ORDER BY q.paid_at, q.id LIMIT 1000`,
      )
      .all(pubkey) as {
      id: string
      amount: number
      request: string
      paid_at: number
      pubkey: string
      zap_request: string | null
      comment: string
    }[]
    return rows.map((row) => {
      const zap = row.zap_request === null ? undefined : (JSON.parse(row.zap_request) as { id: string; pubkey: string })
      return {
        quote: row.id,
        amount_sats: row.amount,
        request: row.request,
        paid_at: row.paid_at,
        pubkey: row.pubkey,
        zap_request_id: zap?.id ?? null,
        sender_pubkey: zap?.pubkey ?? null,
        comment: row.comment,
      }
    })
  }

  dueReceipts(): DueReceipt[] {
    return this.#database
      .sql(
        `SELECT p.quote_id AS quoteId, p.receipt, p.zap_request AS zapRequest, q.request AS bolt11, q.preimage, q.paid_at AS paidAt
         FROM address_payments p JOIN mint_quotes q ON q.id = p.quote_id
         WHERE p.published_at IS NULL AND p.zap_request IS NOT NULL AND q.state <> 'UNPAID'`,
      )
      .all() as DueReceipt[]
  }

  storeReceipt(quoteId: string, receipt: string): void {
    this.#database.sql('UPDATE address_payments SET receipt = ? WHERE quote_id = ? AND receipt IS NULL').run(receipt, quoteId)
  }

  markPublished(quoteId: string, nowSeconds: number): void {
    this.#database.sql('UPDATE address_payments SET published_at = ? WHERE quote_id = ?').run(nowSeconds, quoteId)
  }
}
