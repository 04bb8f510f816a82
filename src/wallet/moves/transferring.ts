/** Moves sats between two wallets of this home: one operation, with the coins for it. */
import type { WalletOwner } from '../../base/accounts.ts'
import { type Sats, sats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { requestDigest } from '../context.ts'
import { inputFee, selectCoins } from '../ecash/coins.ts'
import { storedError, unknownOutcome } from '../operations/outcomes.ts'
import type { TransferOptions } from '../types.ts'
import { assertPositive, type Funds } from './funds.ts'
import { type OwnCoins, tooDear } from './own-coins.ts'

export class Transferring {
  readonly #funds: Funds
  readonly #ownCoins: OwnCoins

  constructor(funds: Funds, ownCoins: OwnCoins) {
    this.#funds = funds
    this.#ownCoins = ownCoins
  }

  /** What it cost in fees. @throws insufficient_funds, funds_owed, payment_failed, payment_unknown, mint_rejected */
  transferTo(to: WalletOwner, amountSats: Sats, idempotencyKey: string, options: TransferOptions): Promise<Sats> {
    const { mintUrl } = options
    const digest = requestDigest('transfer', { from: this.#funds.owner.pubkey, to: to.pubkey, amountSats, mintUrl })
    return this.#funds.keys.run(idempotencyKey, async () => {
      const before = await this.#funds.existing({ idempotencyKey }, digest)
      const prepare = () => this.#funds.choosing.run('', () => this.#prepareTransfer(to, amountSats, idempotencyKey, digest, options))
      const operation = await this.#funds.run(before?.id, prepare)
      if (operation.state === 'failed') throw storedError(operation, this.#funds.swapFeeSats(idempotencyKey))
      if (operation.state !== 'completed') throw unknownOutcome(operation, 'The transfer was sent to the mint')
      const { fee_sats = 0 } = operation.result as { fee_sats?: number }
      return sats(fee_sats)
    })
  }

  async #prepareTransfer(
    to: WalletOwner,
    amountSats: Sats,
    idempotencyKey: string,
    digest: string,
    { mintUrl: wanted, maxFeeSats, cause = { type: 'transfer', id: idempotencyKey }, spend: given }: TransferOptions,
  ): Promise<string> {
    assertPositive(amountSats)
    if (to.pubkey === this.#funds.owner.pubkey) throw new PylonError('invalid_request', 'A transfer needs two different wallets.')
    const mintUrl = await this.#funds.mintToSpend(wanted, amountSats, false)
    this.#funds.assertNotOwed(mintUrl, amountSats)
    const spend = this.#funds.bind({ cause }, 'own', given)
    const admit = (feeSats: bigint) => {
      this.#funds.assertMaySpend(spend, amountSats + feeSats)
      const total = feeSats + this.#funds.swapFeeSats(idempotencyKey)
      if (maxFeeSats !== undefined && total > maxFeeSats) throw tooDear(total, maxFeeSats)
    }
    const coins = await this.#ownCoins.gather(mintUrl, { idempotencyKey, cause, spend, admit }, (own) => selectCoins(own, amountSats))
    admit(inputFee(coins))
    this.#funds.assertNotOwed(mintUrl, amountSats + inputFee(coins))
    const keyset = await this.#funds.context.mints.activeKeyset(mintUrl)
    const peers = this.#funds.spread(amountSats, keyset, to.pubkey)
    return this.#ownCoins.insertTransfer({ to, peers, mintUrl, keyset, coins, idempotencyKey, digest, cause, spend })
  }
}
