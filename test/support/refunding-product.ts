/** One sale that is being refunded, without a row of its own: what its payer is told is noted, and the refund is always due. */
import { msats } from '../../src/base/amounts.ts'
import type { Product, RefundWord, Sale } from '../../src/provider/sale/product.ts'
import { type Command, defineCommand } from '../../src/store/commands.ts'

type Given = Pick<Sale, 'id' | 'paidMsats' | 'payerPubkey' | 'mintUrl' | 'isPayersDoing'>

const nothing = defineCommand('nothing', () => undefined)

export class RefundingProduct implements Product {
  readonly type = 'job'
  readonly told: RefundWord[] = []
  readonly #given: Given

  constructor(given: Given) {
    this.#given = given
  }

  get(): Sale {
    return { ...this.#given, transport: 'nip90', state: 'refunding', priceMsats: msats(0), wantedUntil: 0, refundSends: 0 }
  }

  overdue = () => []
  refundsDue = () => [this.#given.id]
  refundsBegun = () => 1
  paid = () => ({ commands: [] })
  expired = () => ({ commands: [] })
  back = () => ({ commands: [] })
  note = (): Command<unknown> => nothing(undefined)
  refunded = (): Command<unknown> => nothing(undefined)
  tokenFailed = () => Promise.resolve()

  async tell(_sale: Sale, word: RefundWord): Promise<readonly Command<unknown>[]> {
    this.told.push(word)
    return []
  }
}
