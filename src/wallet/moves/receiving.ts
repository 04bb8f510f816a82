/** Takes tokens in: reads them with care, swaps them at their mint, and only then calls them ours. */
import { sats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import type { LocalSigner } from '../../nostr/types.ts'
import { all, type Command } from '../../store/commands.ts'
import type { KeysetInfo } from '../../store/money/keysets.ts'
import type { MintRow } from '../../store/money/mints.ts'
import { insertOperation, type OperationRow } from '../../store/money/operations.ts'
import { returnedSats } from '../../store/money/proof-books.ts'
import { heldSats } from '../../store/money/proofs.ts'
import { newId, requestDigest } from '../context.ts'
import { inputFee, sumOf } from '../ecash/coins.ts'
import type { MintPublicKeys, TokenProof } from '../ecash/crypto.ts'
import { lockOf, openingFor } from '../ecash/locks.ts'
import { readTokenHead, readTokenProofs, type TokenHead } from '../ecash/token.ts'
import { assertUnderCap } from '../mint/mints.ts'
import type { ReceivePlan } from '../operations/machine.ts'
import { storedError, unknownOutcome } from '../operations/outcomes.ts'
import { amountsFor, makeOutputs, openingOf, swapBody, tokenLocked, unlockInputs } from '../operations/requests.ts'
import type { ReceivedToken, ReceiveRequest, TokenInspection } from '../types.ts'
import type { Funds } from './funds.ts'

type FaceCoin = { readonly amountSats: bigint; readonly feePpk: number }

interface ReadToken {
  readonly head: TokenHead
  readonly mintUrl: string
  /** Undefined of one that is not on the list. */
  readonly mint: MintRow | undefined
  readonly proofs: TokenProof[]
  readonly coins: FaceCoin[]
  /** Of the keysets that it names. */
  readonly keys: Readonly<Record<string, MintPublicKeys>>
}

/** A token of a mint that is not on the list, which moves to one that is. */
export interface Onward {
  /** Stands in the commit that claims the token; not needed where that was. */
  readonly claim?: Command<unknown>
}

export class Receiving {
  readonly #funds: Funds

  constructor(funds: Funds) {
    this.#funds = funds
  }

  /** @param isForeign whether its mint may be none of the list @param keys that open it beside the wallet's */
  async inspectToken(token: string, isForeign = false, keys: readonly LocalSigner[] = []): Promise<TokenInspection> {
    const { head, mintUrl, proofs, coins } = await this.#readToken(token, isForeign)
    return {
      mintUrl,
      unit: head.unit,
      faceSats: sats(head.faceSats),
      netSats: sats(maxZero(sumOf(coins) - inputFee(coins))),
      ...this.#lockOf(proofs, keys),
    }
  }

  receiveToken(request: ReceiveRequest, onward?: Onward): Promise<ReceivedToken> {
    const { token, creditAccount, requireLock = false, cause } = request
    const digest = requestDigest('receive', { owner: this.#funds.owner.pubkey, token: token.trim(), creditAccount, requireLock, cause })
    return this.#funds.keys.run(request.idempotencyKey, async () => {
      const before = await this.#funds.existing(request, digest)
      const id = before?.id ?? (await this.#prepareReceive(request, digest, onward))
      return this.#received(await this.#funds.executor.run(id))
    })
  }

  #received(operation: OperationRow): ReceivedToken {
    if (operation.state === 'failed') throw storedError(operation)
    if (operation.state !== 'completed') throw unknownOutcome(operation, 'The token was sent to its mint')
    const { amount_sats } = operation.result as { amount_sats: number }
    const heldBefore = returnedSats(this.#funds.context.store, operation.id)
    return {
      amountSats: sats(amount_sats),
      mintUrl: operation.mintUrl,
      ...(heldBefore === 0n ? {} : { heldBeforeSats: sats(heldBefore) }),
    }
  }

  async #prepareReceive(request: ReceiveRequest, digest: string, onward: Onward | undefined): Promise<string> {
    const { store, clock, crypto } = this.#funds.context
    const { head, mintUrl, mint, proofs, coins, keys } = await this.#readToken(request.token, onward !== undefined)
    const { lock, lockReason } = this.#lockOf(proofs, request.keys)
    if (lock === 'other') throw tokenLocked(lockReason ?? 'it is locked to another key')
    if (request.requireLock === true && lock !== 'ours') {
      throw new PylonError(
        'token_locked',
        'The token is not locked to our key: lock it to the key that is announced, or send it encrypted.',
      )
    }
    const net = sumOf(coins) - inputFee(coins)
    if (net <= 0n || net < (request.minNetSats ?? 1n)) {
      throw new PylonError(
        'token_amount',
        `The token is worth ${maxZero(net)} sats after the mint's fee, ${request.minNetSats ?? 1n} are needed.`,
      )
    }
    if (mint !== undefined && onward === undefined) this.#assertUnderCap(mint, net)
    if (!(await crypto.run('checkDleqs', { proofs, keysets: keys }))) {
      throw new PylonError('token_invalid', 'The token carries a signature that its mint did not make.')
    }
    const ys = await crypto.run('ys', { secrets: proofs.map((proof) => proof.secret) })
    const id = newId(this.#funds.context)
    const end = { creditAccount: request.creditAccount, faceSats: Number(head.faceSats) }
    const plan = await this.planReceive(mintUrl, proofs, ys, net, end, request.keys)
    const operation = insertOperation({
      ...this.#funds.base(id, request, digest, mintUrl),
      kind: 'receive',
      amountSats: net,
      heldSats: 0n,
      plan,
      at: clock.now(),
    })
    await store.write(all(operation, ...(onward?.claim === undefined ? [] : [onward.claim])))
    return id
  }

  /** The swap that makes foreign proofs ours. @param net what is left of them after their fee. */
  async planReceive(
    mintUrl: string,
    proofs: readonly TokenProof[],
    ys: readonly string[],
    net: bigint,
    end: Pick<ReceivePlan, 'creditAccount' | 'faceSats' | 'reclaims'>,
    keysBeside: readonly LocalSigner[] = [],
  ): Promise<ReceivePlan> {
    const keyset = await this.#funds.context.mints.activeKeyset(mintUrl)
    const outputs = await makeOutputs(this.#funds.context, keyset, [
      { purpose: 'keep', amounts: amountsFor(net, keyset), owner: this.#funds.owner },
    ])
    const inputs = await unlockInputs(this.#funds.context, this.#funds.owner, proofs, outputs, keysBeside)
    const planned = proofs.map(({ amount }, i) => ({ y: ys[i] ?? '', amount }))
    return { kind: 'receive', path: '/v1/swap', body: swapBody(inputs, outputs), inputs: planned, outputs, ...end }
  }

  /** @throws token_invalid, mint_not_allowed */
  async #readToken(token: string, isForeign: boolean): Promise<ReadToken> {
    const { mints, firstLook } = this.#funds.context
    const head = readTokenHead(token)
    await firstLook.over(head.mintUrl)
    if (!isForeign && !mints.has(head.mintUrl)) throw foreignMint(head.mintUrl)
    const mint = mints.has(head.mintUrl) ? mints.get(head.mintUrl) : undefined
    const mintUrl = mint?.url ?? head.mintUrl
    if (head.unit !== 'sat') throw new PylonError('token_invalid', `The token is in ${head.unit.slice(0, 20)}: only sat is taken.`)
    let proofs: TokenProof[]
    try {
      proofs = readTokenProofs(head, keysetIds(mints.keysets(mintUrl)))
    } catch {
      // A keyset that is younger than our list.
      await mints.refreshKeysets(mintUrl)
      proofs = readTokenProofs(head, keysetIds(mints.keysets(mintUrl)))
    }
    const fees = new Map(mints.keysets(mintUrl).map((keyset) => [keyset.id, keyset.inputFeePpk]))
    const keys: Record<string, MintPublicKeys> = {}
    for (const id of new Set(proofs.map((proof) => proof.id))) keys[id] = await mints.keys(mintUrl, id)
    const coins = proofs.map((proof) => {
      if (keys[proof.id]?.[String(proof.amount)] === undefined)
        throw new PylonError('token_invalid', 'The token has an amount that its keyset does not have.')
      return { amountSats: BigInt(proof.amount), feePpk: fees.get(proof.id) ?? 0 }
    })
    return { head, mintUrl, mint, proofs, coins, keys }
  }

  #lockOf(proofs: readonly TokenProof[], keys: readonly LocalSigner[] = []): Pick<TokenInspection, 'lock' | 'lockReason' | 'byWalletKey'> {
    const { keyring, clock } = this.#funds.context
    const nowS = clock.now() / 1000
    const secrets = proofs.map((proof) => proof.secret)
    const opening = openingOf(keyring, this.#funds.owner, secrets, nowS, keys)
    if (!opening.opens) return { lock: 'other', lockReason: opening.reason }
    if (opening.forAll) return { lock: 'none' }
    const walletKey = new Set([keyring.walletSigner(this.#funds.owner.pubkey).pubkey])
    return { lock: 'ours', byWalletKey: secrets.every((secret) => openingFor(lockOf(secret), walletKey, nowS).opens) }
  }

  /** @throws mint_cap_exceeded */
  #assertUnderCap(mint: MintRow, more: bigint): void {
    assertUnderCap(mint, heldSats(this.#funds.context.store, this.#funds.owner.pubkey, mint.url), more)
  }
}

const keysetIds = (keysets: readonly KeysetInfo[]) => keysets.map((keyset) => keyset.id)
const maxZero = (value: bigint): bigint => (value < 0n ? 0n : value)

function foreignMint(url: string): PylonError {
  return new PylonError(
    'mint_not_allowed',
    `The mint ${url} is not on the list: move the token to a mint of yours with pylon wallet receive TOKEN --move (--dry-run tells the fee), or accept the mint with pylon wallet mints add ${url}.`,
    { details: { mint_url: url } },
  )
}
