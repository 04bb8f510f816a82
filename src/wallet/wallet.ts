/** One key's wallet: receives, sends, pays and takes back, each as a stored operation under the caller's idempotency key. */
import { type Sats, sats } from '../base/amounts.ts'
import { type ErrorCode, isPylonError, PylonError } from '../base/errors.ts'
import { holdSpend } from '../store/budgets.ts'
import { all, type Command } from '../store/commands.ts'
import { balancesByPrefix } from '../store/ledger.ts'
import type { KeysetRow, MintRow } from '../store/mints.ts'
import { atRiskSats, insertOperation, type NewOperation, type OperationRow, operationByKey } from '../store/operations.ts'
import { heldSats, listProofs, moveProofs, type ProofRow, proofsOfOperation } from '../store/proofs.ts'
import { decodeInvoice } from './bolt11.ts'
import { blankOutputs, coverFee, inputFee, selectCoins, selectExact, sumOf } from './coins.ts'
import { accountOwner, KeyedQueue, newId, requestDigest, utcDay, type WalletContext } from './context.ts'
import type { TokenProof } from './crypto.ts'
import type { Executor } from './executor.ts'
import type { Invoices } from './invoices.ts'
import { type MeltQuote, type MintReply, meltQuoteSchema } from './mint-client.ts'
import { assertUnderCap } from './mints.ts'
import type { MeltPlan, Plan, ReceivePlan, SendPlan, TransferPlan } from './operations.ts'
import { amountsFor, inputsOf, lockOfSend, makeOutputs, meltBody, signerForLock, swapBody, unlockInputs } from './requests.ts'
import type { SentTokens } from './sent-tokens.ts'
import { completion, holding } from './settlement.ts'
import { readTokenHead, readTokenProofs, type TokenHead } from './token.ts'
import type {
  Balance,
  Invoice,
  InvoiceRequest,
  PayRequest,
  PayResult,
  ReceiveRequest,
  SendRequest,
  SentToken,
  Spend,
  TokenInspection,
  Wallet,
  WalletOwner,
} from './types.ts'

/** A proof with the fee of spending it. */
type OwnCoin = ProofRow & { readonly feePpk: number }

export interface WalletParts {
  readonly context: WalletContext
  readonly executor: Executor
  readonly invoices: Invoices
  readonly sentTokens: SentTokens
}

export class CashuWallet implements Wallet {
  readonly owner: WalletOwner
  readonly #parts: WalletParts
  readonly #context: WalletContext
  readonly #executor: Executor
  /** Proofs are chosen by one request at a time, and a key is used by one at a time. */
  readonly #choosing = new KeyedQueue()
  readonly #keys = new KeyedQueue()

  constructor(owner: WalletOwner, parts: WalletParts) {
    this.owner = owner
    this.#parts = parts
    this.#context = parts.context
    this.#executor = parts.executor
  }

  get lockPubkey(): string {
    return `02${this.#context.keyring.walletSigner(this.owner.pubkey).pubkey}`
  }

  balance(): Balance {
    const { store, mints } = this.#context
    const prefix = `${accountOwner(this.owner)}/wallet/`
    const sums = balancesByPrefix(store, prefix)
    const rows = mints.list().map(({ url, state, reason }) => ({ url, state, reason }))
    const mintsOut = rows.map(({ url, state, reason }) => ({
      url,
      balanceSats: sats((sums.get(`${prefix}${url}`) ?? 0n) / 1000n),
      state,
      ...(reason === null ? {} : { reason }),
    }))
    const total = [...sums.values()].reduce((sum, value) => sum + value, 0n)
    return { balanceSats: sats(total / 1000n), atRiskSats: sats(atRiskSats(store, this.owner.pubkey)), mints: mintsOut }
  }

  createInvoice(request: InvoiceRequest): Promise<Invoice> {
    return this.#parts.invoices.create(this.owner, request)
  }

  invoice(idempotencyKey: string): Invoice | undefined {
    return this.#parts.invoices.get(idempotencyKey)
  }

  // Receiving

  async inspectToken(token: string): Promise<TokenInspection> {
    const { head, proofs, coins } = await this.#readToken(token)
    return {
      mintUrl: head.mintUrl,
      unit: head.unit,
      faceSats: sats(head.faceSats),
      netSats: sats(maxZero(sumOf(coins) - inputFee(coins))),
      lock: this.#lockOf(proofs),
    }
  }

  receiveToken(request: ReceiveRequest): Promise<{ amountSats: Sats; mintUrl: string }> {
    const { token, creditAccount, requireLock = false, cause } = request
    const digest = requestDigest('receive', { owner: this.owner.pubkey, token: token.trim(), creditAccount, requireLock, cause })
    return this.#keys.run(request.idempotencyKey, async () => {
      const before = this.#existing(request.idempotencyKey, digest)
      const id = before?.id ?? (await this.#prepareReceive(request, digest))
      return this.#received(await this.#executor.run(id))
    })
  }

  #received(operation: OperationRow): { amountSats: Sats; mintUrl: string } {
    if (operation.state === 'failed') throw storedError(operation)
    if (operation.state !== 'completed') throw unknownOutcome(operation, 'The token was sent to its mint')
    const { amount_sats } = operation.result as { amount_sats: number }
    return { amountSats: sats(amount_sats), mintUrl: operation.mintUrl }
  }

  async #prepareReceive(request: ReceiveRequest, digest: string): Promise<string> {
    const { store, clock, crypto } = this.#context
    const { head, mint, proofs, coins, keysets } = await this.#readToken(request.token)
    const lock = this.#lockOf(proofs)
    if (lock === 'other') throw new PylonError('token_locked', 'The token is locked to another key: only that key can spend it.')
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
    this.#assertUnderCap(mint, net)
    const keys = Object.fromEntries(keysets.map((keyset) => [keyset.id, keyset.keys]))
    if (!(await crypto.run('checkDleqs', { proofs, keysets: keys }))) {
      throw new PylonError('token_invalid', 'The token carries a signature that its mint did not make.')
    }
    const ys = await crypto.run('ys', { secrets: proofs.map((proof) => proof.secret) })
    const id = newId()
    const plan = await this.#receivePlan(head.mintUrl, proofs, ys, net, {
      creditAccount: request.creditAccount,
      faceSats: Number(head.faceSats),
    })
    await store.write(
      insertOperation({
        ...this.#base(id, request, digest, head.mintUrl),
        kind: 'receive',
        amountSats: net,
        heldSats: 0n,
        plan,
        at: clock.now(),
      }),
    )
    return id
  }

  async #receivePlan(
    mintUrl: string,
    proofs: readonly TokenProof[],
    ys: readonly string[],
    net: bigint,
    end: Pick<ReceivePlan, 'creditAccount' | 'faceSats' | 'reclaims'>,
  ): Promise<ReceivePlan> {
    const keyset = await this.#context.mints.activeKeyset(mintUrl)
    const outputs = await makeOutputs(this.#context, keyset, [{ purpose: 'keep', amounts: amountsFor(net, keyset), owner: this.owner }])
    const inputs = await unlockInputs(this.#context, this.owner, proofs, outputs)
    const planned = proofs.map(({ amount }, i) => ({ y: ys[i] ?? '', amount }))
    return { kind: 'receive', path: '/v1/swap', body: swapBody(inputs, outputs), inputs: planned, outputs, ...end }
  }

  /** @throws token_invalid, mint_not_allowed */
  async #readToken(
    token: string,
  ): Promise<{ head: TokenHead; mint: MintRow; proofs: TokenProof[]; coins: OwnFee[]; keysets: KeysetRow[] }> {
    const { mints } = this.#context
    const head = readTokenHead(token)
    const mint = mints.get(head.mintUrl)
    if (head.unit !== 'sat') throw new PylonError('token_invalid', `The token is in ${head.unit.slice(0, 20)}: only sat is taken.`)
    let proofs: TokenProof[]
    try {
      proofs = readTokenProofs(head, keysetIds(mints.keysets(mint.url)))
    } catch {
      // A keyset that is younger than our list.
      await mints.refreshKeysets(mint.url)
      proofs = readTokenProofs(head, keysetIds(mints.keysets(mint.url)))
    }
    const keysets = mints.keysets(mint.url)
    const coins = proofs.map((proof) => {
      const keyset = keysets.find((one) => one.id === proof.id)
      if (keyset?.keys[String(proof.amount)] === undefined)
        throw new PylonError('token_invalid', 'The token has an amount that its keyset does not have.')
      return { amountSats: BigInt(proof.amount), feePpk: keyset.inputFeePpk }
    })
    return { head, mint, proofs, coins, keysets }
  }

  #lockOf(proofs: readonly TokenProof[]): TokenInspection['lock'] {
    const { keyring, clock } = this.#context
    const keys = proofs.map((proof) => signerForLock(keyring, this.owner, proof.secret, clock.now() / 1000))
    if (keys.includes(undefined)) return 'other'
    return keys.includes('none') ? 'none' : 'ours'
  }

  // Sending

  sendToken(request: SendRequest, spend?: Spend): Promise<SentToken> {
    const { amountSats, mintUrl, lockTo, debitAccount, coverReceiverFee = false, cause } = request
    const digest = requestDigest('send', { owner: this.owner.pubkey, amountSats, mintUrl, lockTo, debitAccount, coverReceiverFee, cause })
    return this.#keys.run(request.idempotencyKey, async () => {
      const before = this.#existing(request.idempotencyKey, digest)
      const id = before?.id ?? (await this.#choosing.run('', () => this.#prepareSend(request, digest, spend)))
      const operation = await this.#executor.run(id)
      if (operation.state === 'failed') throw storedError(operation)
      if (operation.state !== 'completed') throw unknownOutcome(operation, 'The token was asked of its mint')
      return asSentToken(operation)
    })
  }

  sentToken(idempotencyKey: string): SentToken | undefined {
    const operation = operationByKey(this.#context.store, idempotencyKey)
    return operation?.kind === 'send' && operation.state === 'completed' ? asSentToken(operation) : undefined
  }

  async #prepareSend(request: SendRequest, digest: string, spend: Spend | undefined): Promise<string> {
    const { lockTo, refundAfter, debitAccount } = request
    assertPositive(request.amountSats)
    if (lockTo !== undefined && !/^0[23][0-9a-f]{64}$/.test(lockTo)) {
      throw new PylonError('pubkey_invalid', 'The key to lock the token to must be 02 or 03 and 64 hex digits.')
    }
    const amountsOf = async (mintUrl: string) => {
      const keyset = await this.#context.mints.activeKeyset(mintUrl)
      const sizes = Object.keys(keyset.keys).map(BigInt)
      const face = request.coverReceiverFee === true ? coverFee(request.amountSats, sizes, keyset.inputFeePpk) : request.amountSats
      return { keyset, face }
    }
    const mintUrl = await this.#mintToSpend(request.mintUrl, request.amountSats)
    const { keyset, face } = await amountsOf(mintUrl)
    const lock = lockOfSend(this.#context, this.owner, request)
    const coins = await this.#chooseCoins(mintUrl, (own) => {
      const exact = lockTo === undefined ? selectExact(own, face) : undefined
      const fits = exact !== undefined && (request.coverReceiverFee !== true || face - inputFee(exact) >= request.amountSats)
      return fits ? exact : selectCoins(own, face)
    })
    const isExact = lockTo === undefined && sumOf(coins) === face
    const fee = isExact ? 0n : inputFee(coins)
    const change = sumOf(coins) - fee - face
    const outputs = isExact
      ? []
      : await makeOutputs(this.#context, keyset, [
          { purpose: 'send', amounts: amountsFor(face, keyset), owner: this.owner, ...lock },
          { purpose: 'keep', amounts: amountsFor(change, keyset), owner: this.owner },
        ])
    const plan: SendPlan = {
      kind: 'send',
      path: isExact ? '' : '/v1/swap',
      body: isExact ? '' : swapBody(inputsOf(coins), outputs),
      inputs: coins.map(plannedInput),
      outputs,
      debitAccount,
      amountSats: Number(request.amountSats),
      faceSats: Number(face),
      inputFeeSats: Number(fee),
      ...(lockTo === undefined ? {} : { lockTo }),
      ...(refundAfter === undefined ? {} : { refundAfter }),
    }
    const operation = {
      ...this.#base(newId(), request, digest, mintUrl),
      kind: 'send' as const,
      amountSats: request.amountSats,
      heldSats: face + fee,
      plan,
    }
    await this.#insertSpend(operation, spend, isExact ? coins : undefined)
    return operation.id
  }

  async reclaim(idempotencyKey: string): Promise<SentToken> {
    const send = operationByKey(this.#context.store, idempotencyKey)
    if (send?.kind !== 'send' || send.state !== 'completed' || send.owner.pubkey !== this.owner.pubkey) {
      throw new PylonError('not_found', 'This wallet sent no token under that key.')
    }
    return this.#keys.run(`reclaim:${send.id}`, async () => {
      await this.#parts.sentTokens.check([send.id])
      const now = operationByKey(this.#context.store, idempotencyKey) ?? send
      if (now.tokenState !== 'pending') return asSentToken(now)
      const key = `reclaim:${send.id}`
      const id = operationByKey(this.#context.store, key)?.id ?? (await this.#prepareReclaim(now, key))
      const operation = await this.#executor.run(id)
      if (operation.state === 'failed') await this.#parts.sentTokens.check([send.id])
      if (operation.state !== 'completed' && operation.state !== 'failed') throw unknownOutcome(operation, 'The token is being taken back')
      const after = operationByKey(this.#context.store, idempotencyKey) ?? now
      if (after.tokenState === 'pending') throw storedError(operation)
      return asSentToken(after)
    })
  }

  async #prepareReclaim(send: OperationRow, idempotencyKey: string): Promise<string> {
    const { store, clock } = this.#context
    const { lockTo, refundAfter, debitAccount, amountSats } = send.plan as SendPlan
    if (lockTo !== undefined && (refundAfter === undefined || refundAfter > clock.now())) {
      const when = refundAfter === undefined ? 'it has no refund time' : `not before ${new Date(refundAfter).toISOString()}`
      throw new PylonError('conflict', `The token is locked to its receiver and cannot be taken back: ${when}.`)
    }
    const rows = proofsOfOperation(store, send.id, 'sent')
    const coins = this.#withFees(send.mintUrl, rows)
    const net = sumOf(coins) - inputFee(coins)
    if (net <= 0n) throw new PylonError('token_amount', 'The token is worth less than the fee of taking it back.')
    const proofs = rows.map(({ keysetId, amountSats: amount, secret, c }) => ({ id: keysetId, amount: Number(amount), secret, C: c }))
    const ys = rows.map((row) => row.y)
    const plan = await this.#receivePlan(send.mintUrl, proofs, ys, net, {
      creditAccount: debitAccount,
      faceSats: amountSats,
      reclaims: send.id,
    })
    const id = newId()
    const base = this.#base(id, { idempotencyKey, cause: send.cause }, requestDigest('reclaim', { send: send.id }), send.mintUrl)
    await store.write(insertOperation({ ...base, kind: 'receive', amountSats: net, heldSats: 0n, plan, at: clock.now() }))
    return id
  }

  // Paying

  pay(request: PayRequest, spend?: Spend): Promise<PayResult> {
    const { amountMsats, debitAccount, cause } = request
    const digest = requestDigest('pay', {
      owner: this.owner.pubkey,
      request: bareInvoice(request.request),
      amountMsats,
      debitAccount,
      cause,
    })
    return this.#keys.run(request.idempotencyKey, async () => {
      const before = this.#existing(request.idempotencyKey, digest)
      const id = before?.id ?? (await this.#choosing.run('', () => this.#preparePay(request, digest, spend)))
      const operation = await this.#executor.run(id)
      if (operation.state === 'failed') throw storedError(operation)
      return asPayResult(operation)
    })
  }

  payment(idempotencyKey: string): PayResult | { readonly state: 'failed'; readonly reason: string } | undefined {
    const operation = operationByKey(this.#context.store, idempotencyKey)
    if (operation?.kind !== 'melt') return undefined
    if (operation.state === 'failed') return { state: 'failed', reason: operation.error?.message ?? 'refused' }
    return asPayResult(operation)
  }

  async #preparePay(request: PayRequest, digest: string, spend: Spend | undefined): Promise<string> {
    const invoice = this.#checkedInvoice(request)
    const amount = (invoice.amountMsats + 999n) / 1000n
    const maxFee = request.maxFeeSats ?? this.#defaultMaxFee(amount)
    const { mintUrl, quote } = await this.#meltQuote(invoice.request, amount, maxFee)
    const coins = await this.#chooseCoins(mintUrl, (own) => selectCoins(own, amount + BigInt(quote.fee_reserve)))
    const fee = inputFee(coins)
    const keyset = await this.#context.mints.activeKeyset(mintUrl)
    const blanks = new Array<number>(blankOutputs(sumOf(coins) - fee - amount)).fill(0)
    const outputs = await makeOutputs(this.#context, keyset, [{ purpose: 'keep', amounts: blanks, owner: this.owner }])
    const plan: MeltPlan = {
      kind: 'melt',
      path: '/v1/melt/bolt11',
      body: meltBody(quote.quote, inputsOf(coins), outputs),
      inputs: coins.map(plannedInput),
      outputs,
      debitAccount: request.debitAccount,
      quoteId: quote.quote,
      paymentHash: invoice.paymentHash,
      amountSats: Number(amount),
      inputFeeSats: Number(fee),
    }
    const held = amount + BigInt(quote.fee_reserve) + fee
    const operation = { ...this.#base(newId(), request, digest, mintUrl), kind: 'melt' as const, amountSats: amount, heldSats: held, plan }
    await this.#insertSpend(operation, spend, undefined)
    return operation.id
  }

  #checkedInvoice(request: PayRequest): { request: string; amountMsats: bigint; paymentHash: string } {
    const { clock, invoiceNetwork } = this.#context
    const { request: bolt11, amountMsats, paymentHash, expiresAt, network } = decodeInvoice(request.request)
    if (amountMsats === undefined || amountMsats <= 0n) {
      throw new PylonError('invoice_invalid', 'The invoice has no amount: ask for one that says how much.')
    }
    if (request.amountMsats !== undefined && request.amountMsats !== amountMsats) {
      throw new PylonError('invoice_invalid', `The invoice asks for ${amountMsats} msats, not the agreed ${request.amountMsats}.`)
    }
    if (invoiceNetwork !== undefined && network !== invoiceNetwork) {
      throw new PylonError('invoice_invalid', `The invoice is for another network (ln${network}, this node pays ln${invoiceNetwork}).`)
    }
    if (expiresAt <= clock.now()) throw new PylonError('invoice_expired', 'The invoice has expired: ask for a new one.')
    return { request: bolt11, amountMsats, paymentHash }
  }

  #defaultMaxFee(amount: bigint): bigint {
    const percent = this.#context.config().wallet.max_fee_percent
    const share = (amount * BigInt(Math.round(percent * 100)) + 9_999n) / 10_000n
    return share > 10n ? share : 10n
  }

  /** A quote of the first mint that holds enough and asks a fair fee. @throws insufficient_funds, payment_failed, mint_unreachable */
  async #meltQuote(request: string, amount: bigint, maxFee: bigint): Promise<{ mintUrl: string; quote: MeltQuote }> {
    let problem: PylonError | undefined
    for (const mintUrl of this.#mintsHolding(amount)) {
      const body = JSON.stringify({ request, unit: 'sat' })
      const reply: MintReply<MeltQuote> = await this.#context.mints.client(mintUrl).post('/v1/melt/quote/bolt11', body, meltQuoteSchema)
      await this.#context.mints.note(mintUrl, reply)
      if (reply.kind === 'unknown')
        problem ??= new PylonError('mint_unreachable', `${mintUrl} gave no usable answer: ${reply.reason}. Nothing was spent.`)
      else if (reply.kind === 'rejected')
        problem = new PylonError('payment_failed', `${mintUrl} refused: ${reply.detail}. Nothing was spent.`)
      else if (BigInt(reply.value.amount) !== amount || (reply.value.unit ?? 'sat') !== 'sat') {
        problem = new PylonError(
          'payment_failed',
          `${mintUrl} asks ${reply.value.amount} for an invoice of ${amount} sats. Nothing was spent.`,
        )
      } else if (BigInt(reply.value.fee_reserve) > maxFee) {
        problem = new PylonError(
          'payment_failed',
          `${mintUrl} reserves a fee of ${reply.value.fee_reserve} sats, at most ${maxFee} are allowed. Nothing was spent.`,
        )
      } else return { mintUrl, quote: reply.value }
    }
    throw problem ?? this.#insufficient(amount)
  }

  // Between own wallets

  /** @throws insufficient_funds, payment_unknown, mint_rejected */
  transferTo(to: WalletOwner, amountSats: Sats, idempotencyKey: string): Promise<void> {
    const digest = requestDigest('transfer', { from: this.owner.pubkey, to: to.pubkey, amountSats })
    return this.#keys.run(idempotencyKey, async () => {
      const before = this.#existing(idempotencyKey, digest)
      const id = before?.id ?? (await this.#choosing.run('', () => this.#prepareTransfer(to, amountSats, idempotencyKey, digest)))
      const operation = await this.#executor.run(id)
      if (operation.state === 'failed') throw storedError(operation)
      if (operation.state !== 'completed') throw unknownOutcome(operation, 'The transfer was sent to the mint')
    })
  }

  async #prepareTransfer(to: WalletOwner, amountSats: Sats, idempotencyKey: string, digest: string): Promise<string> {
    assertPositive(amountSats)
    if (to.pubkey === this.owner.pubkey) throw new PylonError('invalid_request', 'A transfer needs two different wallets.')
    const mintUrl = await this.#mintToSpend(undefined, amountSats)
    const keyset = await this.#context.mints.activeKeyset(mintUrl)
    const coins = await this.#chooseCoins(mintUrl, (own) => selectCoins(own, amountSats))
    const fee = inputFee(coins)
    const outputs = await makeOutputs(this.#context, keyset, [
      { purpose: 'peer', amounts: amountsFor(amountSats, keyset), owner: to },
      { purpose: 'keep', amounts: amountsFor(sumOf(coins) - fee - amountSats, keyset), owner: this.owner },
    ])
    const plan: TransferPlan = {
      kind: 'transfer',
      path: '/v1/swap',
      body: swapBody(inputsOf(coins), outputs),
      inputs: coins.map(plannedInput),
      outputs,
      to,
      amountSats: Number(amountSats),
      inputFeeSats: Number(fee),
    }
    const cause = { type: 'transfer' as const, id: idempotencyKey }
    const operation = {
      ...this.#base(newId(), { idempotencyKey, cause }, digest, mintUrl),
      kind: 'transfer' as const,
      amountSats,
      heldSats: amountSats + fee,
      plan,
    }
    await this.#insertSpend(operation, undefined, undefined)
    return operation.id
  }

  // Shared

  /** The operation under this key, when it is the same request. @throws idempotency_conflict */
  #existing(idempotencyKey: string, digest: string): OperationRow | undefined {
    const operation = operationByKey(this.#context.store, idempotencyKey)
    if (operation !== undefined && operation.requestDigest !== digest) {
      throw new PylonError('idempotency_conflict', 'This idempotency key was used for another request: use a new one.')
    }
    return operation
  }

  #base(
    id: string,
    request: { idempotencyKey: string; cause: NewOperation['cause'] },
    digest: string,
    mintUrl: string,
  ): Pick<NewOperation, 'id' | 'owner' | 'mintUrl' | 'idempotencyKey' | 'requestDigest' | 'cause'> {
    return { id, owner: this.owner, mintUrl, idempotencyKey: request.idempotencyKey, requestDigest: digest, cause: request.cause }
  }

  /** Operation, reserved inputs, held value and held budget in one commit; where proofs go as they are, the end of it too. */
  async #insertSpend(
    operation: Omit<NewOperation, 'at'>,
    spend: Spend | undefined,
    reused: readonly ProofRow[] | undefined,
  ): Promise<void> {
    const { store, clock } = this.#context
    const at = clock.now()
    const plan = operation.plan as Plan
    const commands: Command<unknown>[] = [
      insertOperation({ ...operation, at }),
      moveProofs({ ys: plan.inputs.map((input) => input.y), from: 'unspent', to: 'reserved', operationId: operation.id, at }),
      holding(operation, at),
    ]
    if (spend !== undefined) {
      commands.push(
        holdSpend({
          operationId: operation.id,
          ownerPubkey: this.owner.pubkey,
          tickId: spend.tickId,
          day: utcDay(at),
          amountSats: operation.heldSats,
          limits: spend.limits,
        }),
      )
    }
    if (reused !== undefined) {
      const fresh: OperationRow = {
        ...operation,
        state: 'prepared',
        result: null,
        error: null,
        tokenState: null,
        attempts: 0,
        tries: 0,
        nextTryAt: null,
        createdAt: at,
        updatedAt: at,
      }
      commands.push(...completion({ operation: fresh, proofs: [], reused, reason: 'proofs fit as they are', at }))
    }
    await store.write(all(...commands))
  }

  /** Chooses among free proofs; where change is on its way back, waits for it. @throws insufficient_funds */
  async #chooseCoins(mintUrl: string, choose: (coins: readonly OwnCoin[]) => readonly OwnCoin[] | undefined): Promise<readonly OwnCoin[]> {
    for (;;) {
      const own = this.#withFees(mintUrl, listProofs(this.#context.store, { pubkey: this.owner.pubkey, mintUrl, state: 'unspent' }))
      const chosen = choose(own)
      if (chosen !== undefined) return chosen
      if (!this.#executor.busy) throw this.#insufficient()
      await this.#executor.anyEnds()
    }
  }

  #withFees(mintUrl: string, rows: readonly ProofRow[]): OwnCoin[] {
    const fees = new Map(this.#context.mints.keysets(mintUrl).map((keyset) => [keyset.id, keyset.inputFeePpk]))
    return rows.map((row) => ({ ...row, feePpk: fees.get(row.keysetId) ?? 0 }))
  }

  /** Mints where the books say that this wallet has at least `amount`, healthy ones first, then the fullest. */
  #mintsHolding(amount: bigint): string[] {
    return [...this.balance().mints]
      .filter((mint) => mint.balanceSats >= amount)
      .sort((a, b) => (a.state === b.state ? Number(b.balanceSats - a.balanceSats) : a.state === 'ok' ? -1 : 1))
      .map((mint) => mint.url)
  }

  async #mintToSpend(wanted: string | undefined, amount: bigint): Promise<string> {
    if (wanted !== undefined) return this.#context.mints.get(wanted).url
    const found = this.#mintsHolding(amount)[0]
    if (found === undefined) throw this.#insufficient(amount)
    return found
  }

  #insufficient(amount?: bigint): PylonError {
    const { balanceSats, atRiskSats } = this.balance()
    const needed = amount === undefined ? 'the amount and its fees' : `${amount} sats at one mint`
    const held = atRiskSats > 0n ? ` (${atRiskSats} more are held by payments under way)` : ''
    return new PylonError(
      'insufficient_funds',
      `The wallet holds ${balanceSats} sats${held}, not ${needed}: fund it with pylon wallet fund or pylon wallet invoice.`,
    )
  }

  /** @throws mint_cap_exceeded */
  #assertUnderCap(mint: MintRow, more: bigint): void {
    assertUnderCap(mint, heldSats(this.#context.store, this.owner.pubkey, mint.url), more)
  }
}

type OwnFee = { readonly amountSats: bigint; readonly feePpk: number }

const plannedInput = (proof: ProofRow) => ({ y: proof.y, amount: Number(proof.amountSats) })
const keysetIds = (keysets: readonly KeysetRow[]) => keysets.map((keyset) => keyset.id)
const maxZero = (value: bigint): bigint => (value < 0n ? 0n : value)

/** The invoice as it is compared: one text for one invoice; what cannot be read is compared as it is. */
function bareInvoice(text: string): string {
  try {
    return decodeInvoice(text).request
  } catch (error) {
    if (isPylonError(error)) return text
    throw error
  }
}

function assertPositive(amount: bigint): void {
  if (amount <= 0n) throw new PylonError('amount_invalid', 'The amount must be at least 1 sat.')
}

function storedError(operation: OperationRow): PylonError {
  const code = (operation.error?.code ?? 'mint_rejected') as ErrorCode
  const what = code === 'token_spent' ? 'The token was already spent' : 'The mint refused and nothing was spent'
  return new PylonError(code, `${what}: ${operation.error?.message ?? 'no reason given'}.`, { details: { operation_id: operation.id } })
}

function unknownOutcome(operation: OperationRow, what: string): PylonError {
  return new PylonError(
    'payment_unknown',
    `${what} and the answer is not known yet (${operation.error?.message ?? 'waiting'}): the node goes on asking.`,
    {
      details: { operation_id: operation.id },
    },
  )
}

function asSentToken(operation: OperationRow): SentToken {
  const { amountSats } = operation.plan as SendPlan
  const { token } = operation.result as { token: string }
  return {
    operationId: operation.id,
    token,
    amountSats: sats(amountSats),
    mintUrl: operation.mintUrl,
    state: operation.tokenState ?? 'pending',
  }
}

function asPayResult(operation: OperationRow): PayResult {
  if (operation.state !== 'completed') return { state: 'unknown', operationId: operation.id }
  const { preimage, fee_sats } = operation.result as { preimage: string; fee_sats: number }
  return { state: 'paid', operationId: operation.id, preimage, feeSats: sats(fee_sats) }
}
