/** What people and agents do in a run, as they would: under a key of its own, and again where the node is down or says "later". */
import { hash } from 'node:crypto'
import { accountOwner, type WalletOwner } from '../../src/base/accounts.ts'
import { sats } from '../../src/base/amounts.ts'
import { type ErrorCode, isPylonError } from '../../src/base/errors.ts'
import { randomBelow, seededRandom } from '../../src/base/random.ts'
import type { ControlCommandInput } from '../../src/nostr/control/commands.ts'
import { findAgent } from '../../src/store/agents/agents.ts'
import { requestSendKey } from '../../src/store/keys.ts'
import { encodePaymentRequest, parsePaymentRequest } from '../../src/wallet/ecash/payment-request.ts'
import { NwcProgram } from './nwc-program.ts'
import { SHOP } from './places.ts'
import type { Deed } from './schedule.ts'
import type { SimulatedNode, World } from './world.ts'

const AGAIN_MS = 10_000
const LEASE_MAX_SATS = 60
/** Whoever cancels waits so long for the first word. */
const HEAR_MS = 60_000
const AFTER_WORD_MS = 200
/** Whoever has the sats, but not at one mint that answers, waits so long. */
const MINTS_BACK_MS = 300_000
/** How long somebody goes on trying. */
const PATIENCE_MS = 4 * 3600_000

export interface Cast {
  readonly world: World
  readonly provider: SimulatedNode
  readonly customer: SimulatedNode
}

type Play<D> = (cast: Cast, deed: D, key: string, salt: number) => Promise<string>
type Of<Name extends Deed['do']> = Extract<Deed, { readonly do: Name }>

/** @returns what came of it, in a word @throws what shows that something is wrong: what was refused for good reasons is none of it */
export function perform(cast: Cast, deed: Deed, key: string, salt: number): Promise<string> {
  return (plays[deed.do] as Play<Deed>)(cast, deed, key, salt)
}

const plays: { readonly [Name in Deed['do']]: Play<Of<Name>> } = {
  async job({ world, customer }, { words, payWith, timeoutMs, cancelAfterMs }, key, salt) {
    const random = seededRandom(salt)
    const text = Array.from({ length: words }, () => `word${randomBelow(random, 1000)}`).join(' ')
    const inputs = [{ data: `${text}. ${text}.`, type: 'text' as const }]
    for (let attempt = 0; attempt < 20; attempt++) {
      const again = attempt === 0 ? key : `${key}-${attempt}`
      const order = { kind: 5001, inputs, params: [], encrypt: payWith === 'token', pay: 'auto' as const, payWith }
      // Refused for now, or the node is going down: the next attempt is another purchase.
      if (await tried(customer, (node) => node.customer.submit({ ...order, timeoutMs }, again))) break
      await world.clock.sleep(AGAIN_MS)
    }
    if (cancelAfterMs === undefined) return 'ordered'
    await world.clock.sleep(cancelAfterMs)
    await tried(customer, (node) => node.customer.cancel(key))
    return 'cancelled'
  },

  async token(cast, { sats: amount, isRace }, key) {
    const { customer, provider } = cast
    let sendKey = ''
    const sent = await untilDone(cast, customer, (node, again) => {
      sendKey = `send-${key}${again}`
      const owner = customerOf(node)
      return node.wallets.of(owner).sendToken({
        ...{ idempotencyKey: sendKey, cause: { type: 'owner', id: key }, amountSats: sats(amount) },
        debitAccount: `${accountOwner(owner)}/equity/withdrawal`,
      })
    })
    if (sent === undefined) return 'not sent'
    let taken = 0
    const receive = async (taker: SimulatedNode) => {
      const take = (node: SimulatedNode, again: string) =>
        node.wallets.of(nodeOf(node)).receiveToken({
          ...{ idempotencyKey: `receive-${key}${again}`, cause: { type: 'owner', id: key }, token: sent.token },
          creditAccount: 'node/equity/funding',
        })
      if ((await untilDone(cast, taker, take, () => taken > 0)) !== undefined) taken++
    }
    await Promise.all([receive(provider), ...(isRace ? [receive(customer)] : [])])
    if (taken > 1) throw new Error(`the token ${key} was received ${taken} times`)
    if (taken === 1) return 'received'
    // Worth nothing to others: fees may be all of it.
    const back = await untilDone(cast, customer, (node) => node.wallets.of(customerOf(node)).reclaim(sendKey))
    return back?.state ?? 'worth nothing'
  },

  async pay(cast, { sats: amount, isRace }, key) {
    const { customer, provider, world } = cast
    const invoice = await invoiceOf(cast, provider, amount, key)
    if (invoice === undefined) return 'no invoice'
    const until = world.clock.now() + MINTS_BACK_MS
    const pay = (who: string) =>
      untilDone(cast, customer, async (node, again) => {
        const wallet = node.wallets.of(customerOf(node))
        try {
          const paid = await wallet.pay({
            ...{ idempotencyKey: `pay-${key}${who}${again}`, cause: { type: 'owner', id: `${key}${who}` }, request: invoice.request },
            debitAccount: 'customer/equity/withdrawal',
          })
          return paid.state === 'paid' ? paid : undefined
        } catch (error) {
          // It has as much, at two mints of which one is away.
          const isSplit = isPylonError(error, 'insufficient_funds') && wallet.balance().balanceSats >= BigInt(amount)
          if (isSplit && world.clock.now() < until) return undefined
          throw error
        }
      })
    const paid = await Promise.all([pay(''), ...(isRace ? [pay('-again')] : [])])
    return paid.some((one) => one !== undefined) ? 'paid' : 'not paid'
  },

  async nwc(cast, { sats: amounts, budgetSats, isRace }, key) {
    const { customer, provider, world } = cast
    const order = { key, name: key, methods: ['pay_invoice', 'get_balance'] as const, expiresAt: null }
    const budget = { sats: sats(budgetSats), per: 'total' as const }
    const made = await untilDone(cast, customer, (node) =>
      node.node.parts.nwc.get().create({ ...order, owner: customerOf(node), budget, methods: [...order.methods] }),
    )
    if (made === undefined) return 'not connected'
    const program = new NwcProgram(world, made.url)
    const answers = amounts.map(async (amount, i) => {
      const invoice = await invoiceOf(cast, provider, amount, `${key}-${i}`)
      if (invoice === undefined) return []
      const ask = () => program.ask('pay_invoice', { invoice: invoice.request })
      return await Promise.all([ask(), ...(isRace ? [ask(), program.ask('get_balance', {})] : [])])
    })
    const said = (await Promise.all(answers)).flat().filter((answer) => answer?.method === 'pay_invoice')
    const codes = said.map((answer) => answer?.error?.code ?? 'paid')
    return codes.includes('paid') ? 'paid' : (codes[0] ?? 'not answered')
  },

  async 'wallet pay'(cast, { sats: amount, isOnce }, key) {
    const invoice = await invoiceOf(cast, cast.customer, amount, key)
    if (invoice === undefined) return 'no invoice'
    const paid = await untilDone(cast, cast.provider, async (node, again) => {
      try {
        const { state } = await node.wallets.of(nodeOf(node)).pay({
          ...{ idempotencyKey: `pay-${key}${again}`, cause: { type: 'owner', id: key }, request: invoice.request, from: 'nwc' },
          debitAccount: 'node/equity/withdrawal',
        })
        return state === 'paid' ? state : undefined
      } catch (error) {
        if (isOnce && isPylonError(error, 'payment_failed')) return 'failed'
        throw error
      }
    })
    return paid ?? 'not paid'
  },

  async payout(cast, { aboveSats, keepSats }) {
    const { customer, provider } = cast
    const address = await untilDone(cast, customer, async (node) => findAgent(node.node.store, 'ada')?.lud06 ?? undefined)
    if (address === undefined) return 'no address'
    const rule = await untilDone(cast, provider, (node) =>
      node.node.parts.payouts.get().set({
        ...{ owner: nodeOf(node), target: { address }, aboveSats: BigInt(aboveSats), keepSats: BigInt(keepSats) },
      }),
    )
    return rule === undefined ? 'not set' : 'set'
  },

  async nutzap(cast, { sats: amount }, key) {
    const { customer, provider } = cast
    const recipient = provider.identity.pubkey
    const paid = await untilDone(cast, customer, async (node, again) => {
      const name = `${key}${again}`
      const { state } = await node.node.parts.zaps.get().send({
        ...{ from: customerOf(node), recipient, amountSats: BigInt(amount), comment: 'thanks', by: 'nutzap', actionId: name },
        ...{ cause: { type: 'owner', id: name }, relays: node.node.parts.nostr.get().relays },
        spend: { subject: 'owner', counterparty: recipient },
      })
      return state === 'paid' ? state : undefined
    })
    return paid ?? 'not paid'
  },

  async request(cast, { sats: amount, isSingleUse, isTwice, shop }, key) {
    const { customer, provider, world } = cast
    const made = await untilDone(cast, provider, (node, again) =>
      node.node.parts.requests.get().made.create({
        ...{ idempotencyKey: `request-${key}${again}`, owner: nodeOf(node), amountSats: BigInt(amount), singleUse: isSingleUse },
        ...{ transport: shop === undefined ? 'nostr' : 'none', relays: node.node.parts.nostr.get().relays },
      }),
    )
    if (made === undefined) return 'not made'
    const { id, mints } = made
    let { request: text } = made
    if (shop !== undefined) {
      const transports = [{ type: 'post', url: `${SHOP}/pay` }] as const
      text = encodePaymentRequest({
        ...{ id, mints, transports },
        amountSats: BigInt(amount),
        description: key,
        singleUse: isSingleUse,
      }).creqA
      world.shop.expect(id, shop, async (content) => {
        const letter = { rumorId: hash('sha256', content), from: customer.identity.pubkey, content }
        await untilDone(cast, provider, (node) => node.node.parts.requests.get().made.take(letter))
      })
    }
    const pay = async (who: string) => {
      const end = await untilDone(cast, customer, async (node, again) => {
        const order = { idempotencyKey: `pay-${key}${who}${again}`, owner: customerOf(node), request: parsePaymentRequest(text) }
        const { row } = await node.node.parts.requests.get().payments.pay(order)
        return ['delivered', 'undelivered'].includes(row.state) ? row : undefined
      })
      if (end?.state !== 'undelivered') return end?.state ?? 'not paid'
      const back = await untilDone(cast, customer, (node) =>
        node.wallets.of(customerOf(node)).reclaim(requestSendKey.of(end.idempotencyKey)),
      )
      return back?.state ?? 'lost'
    }
    return (await Promise.all([pay(''), ...(isTwice ? [pay('-again')] : [])])).join(', ')
  },

  async lease(cast, { seconds, payWith, end, afterMs }, key) {
    const { customer, provider, world } = cast
    const server = provider.identity.pubkey
    let told: string | undefined
    const send = (name: string, command: ControlCommandInput, maxSats = LEASE_MAX_SATS) =>
      untilDone(cast, customer, async (node, again) => {
        const order = { server, command, idempotencyKey: `${name}-${key}${again}`, maxSats, payWith }
        return await node.node.parts.tenant.get().send(order, ({ runtime_id }) => {
          told = runtime_id
        })
      })
    const renting = send(
      'rent',
      { command: 'provision', provider: 'workers', protocol: 'pi', lease_seconds: seconds },
      end === 'pays not' ? 1 : undefined,
    )
    if (end === 'cancels') {
      const until = world.clock.now() + HEAR_MS
      while (told === undefined && world.clock.now() < until) await world.clock.sleep(AFTER_WORD_MS)
      await world.clock.sleep(afterMs / 5)
      if (told !== undefined) await send('leave', { command: 'teardown', runtime_id: told })
    }
    const runtimeId = (await renting)?.runtime.runtime_id
    if (runtimeId === undefined) return 'not rented'
    if (end === 'stays' || end === 'pays not' || end === 'cancels') return 'rented'
    await world.clock.sleep(afterMs)
    if (end === 'leaves')
      return (await send('leave', { command: 'teardown', runtime_id: runtimeId })) === undefined ? 'over before' : 'left'
    return (await send('extend', { command: 'extend_lease', runtime_id: runtimeId, lease_seconds: seconds })) === undefined
      ? 'not extended'
      : 'extended'
  },

  async fund(cast, { sats: amount }, key) {
    const fee = await untilDone(cast, cast.customer, (node, again) =>
      node.wallets.transfer(customerOf(node), agentOf(node, 'ada'), sats(amount), `fund-${key}${again}`),
    )
    return fee === undefined ? 'not funded' : 'funded'
  },

  async zap(cast, { sats: amount }, key) {
    const to = npubOfAgent(cast.provider, 'bob')
    if (to === undefined) return 'nobody there'
    const state = await untilDone(cast, cast.customer, async (node) => {
      const { state } = await node.host.act('ada', { type: 'zap', to, sats: amount, comment: 'thanks' }, `zap-${key}`)
      return state
    })
    return state ?? 'refused'
  },
}

const invoiceOf = (cast: Cast, payee: SimulatedNode, amount: number, key: string) =>
  untilDone(cast, payee, (node, again) =>
    node.wallets.of(nodeOf(node)).createInvoice({
      ...{ idempotencyKey: `invoice-${key}${again}`, cause: { type: 'owner', id: key }, amountSats: sats(amount) },
      creditAccount: 'node/equity/funding',
    }),
  )

const nodeOf = ({ node }: SimulatedNode): WalletOwner => ({ kind: 'node', pubkey: node.keyring.node().pubkey })
export const customerOf = ({ node }: SimulatedNode): WalletOwner => ({ kind: 'customer', pubkey: node.keyring.customer().pubkey })

export function agentOf({ node }: SimulatedNode, name: string): WalletOwner {
  const agent = findAgent(node.store, name)
  if (agent === undefined) throw new Error(`there is no agent ${name}`)
  return { kind: 'agent', pubkey: agent.pubkey }
}

const npubOfAgent = (node: SimulatedNode, name: string): string | undefined =>
  node.isUp ? findAgent(node.node.store, name)?.npub : undefined

/** Whether it worked; what a node refuses is its right. A killed process never answers: that is another attempt's business. */
async function tried(node: SimulatedNode, work: (node: SimulatedNode) => Promise<unknown>): Promise<boolean> {
  if (!node.isUp) return false
  try {
    return (await node.unlessKilled(() => work(node))) !== undefined
  } catch (error) {
    return gaveUp(error)
  }
}

/**
 * Does it again under the same key until there is an answer, and under another (`again`) where it was surely refused.
 * @returns undefined where it was refused for good, or is over
 */
async function untilDone<T>(
  { world }: Cast,
  node: SimulatedNode,
  work: (node: SimulatedNode, again: string) => Promise<T>,
  isOver: () => boolean = () => false,
): Promise<T | undefined> {
  const until = world.clock.now() + PATIENCE_MS
  let refusals = 0
  for (; world.clock.now() < until; await world.clock.sleep(AGAIN_MS)) {
    if (isOver()) return undefined
    if (!node.isUp) continue
    try {
      const answer = await node.unlessKilled(() => work(node, refusals === 0 ? '' : `-${refusals}`))
      if (answer !== undefined) return answer
    } catch (error) {
      if (gaveUp(error)) return undefined
      if (isPylonError(error) && !error.retryable) refusals++
    }
  }
  throw new Error('nothing came of it for hours')
}

/** What stays so whatever a mint says; all else that it refuses now it may take later, or has not told the truth. */
const FOR_GOOD: readonly ErrorCode[] = [
  ...(['insufficient_funds', 'funds_owed', 'budget_exceeded', 'token_amount', 'amount_invalid', 'conflict'] as const),
  ...(['invoice_paid', 'invoice_expired', 'payment_in_progress', 'no_offer', 'price_too_high', 'job_not_cancellable'] as const),
  ...(['runtime_not_found', 'runtime_gone'] as const),
]

/** What a node refuses for now (its mint is down, no machine is made), as its control plane says it. */
const FOR_NOW = ['payment_failed', 'provision_failed']

/** @throws what no node should say */
function gaveUp(error: unknown): boolean {
  if (!isPylonError(error) || error.code === 'internal') throw error
  // What a node could not do for now, it may.
  if (error.code === 'control_refused') return !FOR_NOW.includes(String(error.details['control_code']))
  return FOR_GOOD.includes(error.code)
}
