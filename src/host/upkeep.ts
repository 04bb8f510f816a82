/** What keeps agents going besides their ticks: introductions, wallets watched, outcomes that come late, old rows swept. */
import { messageOf } from '../base/errors.ts'
import type { Scope } from '../base/scope.ts'
import type { SelfPublisher } from '../nostr/self/self.ts'
import { failPublication, finishAction, getAction, openActions } from '../store/agents/actions.ts'
import { deletedAgents, getAgent, listAgents, patchAgent } from '../store/agents/agents.ts'
import { getTick, sweepTicks } from '../store/agents/ticks.ts'
import { actionKey } from '../store/keys.ts'
import { isApproved } from '../store/money/approvals.ts'
import type { WalletEvent } from '../wallet/types.ts'
import { isSpend, onPaymentEvent, outcomeOf, walletKeyOf } from './actions/spend.ts'
import { moveFundsToNode } from './leave.ts'
import { type HostDeps, ownerOf } from './parts.ts'
import { publishProfile } from './profile.ts'
import { followRunway } from './runway.ts'

const CHECK_MS = 10_000
const SWEEP_MS = 3_600_000
const SWEEP_LIMIT = 100
const DAY_MS = 86_400_000
/** Wraps come again for three days: what was opened is remembered longer. */
const MIN_KEPT_DAYS = 5
const OBSERVATIONS_KEPT_DAYS = 7
/** Longer than anything stays in the outbox. */
const OUTBOX_DAYS = 4
const REGISTER_TIMEOUT_MS = 5000
const REGISTER_RETRY_MS = 60_000

export class Upkeep {
  readonly #deps: HostDeps
  readonly #self: SelfPublisher
  readonly #wake: () => void
  readonly #onOutcome: (actionId: string) => void
  /** When an agent's address is asked for next; Infinity where it was given or is being asked for. */
  readonly #registerAt = new Map<string, number>()
  /** As last seen: only a rise is news. */
  readonly #balances = new Map<string, bigint>()
  readonly #scope: Scope
  #sweptAt = 0
  #started = false

  /**
   * @param wake called when an agent's next tick may have changed
   * @param onOutcome called when it is known what became of something published
   */
  constructor(deps: HostDeps, self: SelfPublisher, wake: () => void, onOutcome: (actionId: string) => void) {
    this.#deps = deps
    this.#self = self
    this.#wake = wake
    this.#onOutcome = onOutcome
    this.#scope = deps.scope.child('upkeep', {
      onFailure: ({ path, error }) =>
        deps.logger.warn({ what: path, error: messageOf(error) }, 'the host could not finish something; it tries again'),
    })
    deps.nostr.onPublished(actionKey.of(''), (key, eventId) => this.#onPublished(key, eventId))
    deps.nostr.onGivenUp(actionKey.of(''), (key, why) => this.#onGivenUp(key, why))
    // A payment of an action that ends late, and anything that may change what an agent holds.
    for (const cause of ['action', 'zap', 'transfer', 'owner', 'tick'] as const)
      deps.wallets.onEvent(cause, (event) => this.#onWalletEvent(event))
  }

  async start(): Promise<void> {
    this.#started = true
    await this.#reconcile()
    this.#scope.every('check', CHECK_MS, () => this.#check())
  }

  /** Address, profile and state: what makes a spawned agent a citizen. Each step may be repeated. */
  async introduce(pubkey: string): Promise<void> {
    await this.#register(pubkey)
    const agent = getAgent(this.#deps.store, pubkey)
    if (agent === undefined || this.#scope.isClosing) return
    await publishProfile(this.#deps, this.#self, agent)
    await this.follow(pubkey)
  }

  /** Gets the agent its zap address; where that fails or takes long it is tried again later. */
  async #register(pubkey: string): Promise<void> {
    const { zapAddresses, store, clock, logger } = this.#deps
    const agent = getAgent(store, pubkey)
    if (zapAddresses === undefined || agent === undefined || clock.now() < (this.#registerAt.get(pubkey) ?? 0)) return
    this.#registerAt.set(pubkey, Number.POSITIVE_INFINITY)
    const registration = this.#scope.run(`address of ${agent.name}`, async () => {
      try {
        const { lnurl } = await zapAddresses.register(ownerOf(agent), agent.name)
        if (lnurl !== agent.lud06) await store.write(patchAgent({ pubkey, at: clock.now(), patch: { lud06: lnurl } }))
      } catch (error) {
        this.#registerAt.set(pubkey, clock.now() + REGISTER_RETRY_MS)
        logger.warn({ agent: agent.name, error: messageOf(error) }, 'the agent has no zap address yet')
      }
    })
    await this.#scope.patience(REGISTER_TIMEOUT_MS, registration)
  }

  /** Brings the agent's state in step with its wallet. */
  async follow(pubkey: string): Promise<void> {
    if (this.#scope.isClosing || this.#deps.keyring.locked) return
    if (!this.#balances.has(pubkey)) this.#balances.set(pubkey, this.#deps.wallets.of({ kind: 'agent', pubkey }).balance().balanceSats)
    if (await followRunway(this.#deps, pubkey)) this.#wake()
  }

  async #onPublished(key: string, eventId: string): Promise<void> {
    const [id = '', copy] = (actionKey.idIn(key) ?? '').split(':')
    if (copy !== undefined) return
    await this.#deps.store.write(finishAction({ id, state: 'published', reason: null, eventId, at: this.#deps.clock.now() }))
    this.#onOutcome(id)
  }

  /** The agent's own copy of a message may fail: what counts is what the peer gets. */
  async #onGivenUp(key: string, why: string): Promise<void> {
    const [id = '', copy] = (actionKey.idIn(key) ?? '').split(':')
    if (copy !== undefined) return
    const { store, clock, logger } = this.#deps
    logger.warn({ action: id, why }, 'what an agent published was taken by no relay')
    await store.write(failPublication({ id, reason: `no relay took it: ${why}`.slice(0, 500), at: clock.now() }))
    this.#onOutcome(id)
  }

  async #onWalletEvent(event: WalletEvent): Promise<void> {
    const { store } = this.#deps
    if (event.owner.kind !== 'agent') return
    const action = event.cause.type === 'action' ? getAction(store, event.cause.id) : undefined
    if (action !== undefined && isSpend(action.type)) await onPaymentEvent(this.#deps, action, event)
    if (!this.#started || this.#scope.isClosing) return
    if (getAgent(store, event.owner.pubkey) === undefined) this.inBackground('bequest', () => this.#bequeath(event.owner.pubkey))
    // A zap wakes by its receipt.
    else await this.lookAtWallet(event.owner.pubkey, event.cause.type !== 'zap')
  }

  /** What agents are paid after they were deleted is the node's. */
  async #bequeath(pubkey: string): Promise<void> {
    const { keyring, wallets, logger } = this.#deps
    if (this.#scope.isClosing || keyring.locked || wallets.of({ kind: 'agent', pubkey }).balance().balanceSats === 0n) return
    const movedSats = await moveFundsToNode(this.#deps, { pubkey })
    if (movedSats > 0n) logger.info({ pubkey, moved_sats: Number(movedSats) }, 'sats of a deleted agent came to the node')
  }

  /** Follows a balance that may have changed; what a hibernating agent was given wakes it for one tick. */
  async lookAtWallet(pubkey: string, wakes = true): Promise<void> {
    const { store, clock, wallets } = this.#deps
    const balance = wallets.of({ kind: 'agent', pubkey }).balance().balanceSats
    const before = this.#balances.get(pubkey)
    this.#balances.set(pubkey, balance)
    await this.follow(pubkey)
    const agent = getAgent(store, pubkey)
    const isFunded = wakes && before !== undefined && balance > before
    if (isFunded && agent?.state === 'hibernating' && agent.nextTickAt === null) {
      await store.write(patchAgent({ pubkey, at: clock.now(), patch: { nextTickAt: clock.now() } }))
      this.#wake()
    }
  }

  /** Spends that were taken up in a tick that has ended: the wallet knows how they went. */
  async #reconcile(): Promise<void> {
    const { store, clock } = this.#deps
    for (const action of openActions(store)) {
      const tick = getTick(store, action.tickId)
      // What was approved goes on as such.
      if (!isSpend(action.type) || tick === undefined || tick.state === 'acting' || isApproved(store, action.id)) continue
      const owner = { kind: 'agent', pubkey: action.agentPubkey } as const
      const payment = outcomeOf(this.#deps, action)
      const cause = { type: 'action', id: action.id } as const
      const idempotencyKey = walletKeyOf(action)
      if (payment?.state === 'paid')
        await onPaymentEvent(this.#deps, action, { type: 'payment_settled', cause, owner, idempotencyKey, feeSats: payment.feeSats })
      else if (payment === undefined || payment.state === 'failed') {
        await store.write(finishAction({ id: action.id, state: 'failed', reason: payment?.reason ?? 'nothing was spent', at: clock.now() }))
      }
    }
  }

  /** What no event tells: a balance that changed, an address still missing, publishing that nobody took, old rows. */
  async #check(): Promise<void> {
    const { store, clock, config, logger } = this.#deps
    for (const agent of listAgents(store)) {
      try {
        await this.lookAtWallet(agent.pubkey)
        await this.introduce(agent.pubkey)
      } catch (error) {
        logger.warn({ agent: agent.name, error: messageOf(error) }, 'an agent could not be looked after; it is tried again')
      }
    }
    // Timers stand still while the machine sleeps, and do not follow a clock that is put right.
    this.#wake()
    const now = clock.now()
    if (now - this.#sweptAt < SWEEP_MS) return
    this.#sweptAt = now
    for (const pubkey of deletedAgents(store)) this.inBackground('bequest', () => this.#bequeath(pubkey))
    for (const action of openActions(store)) {
      if (isSpend(action.type) || now - action.updatedAt < OUTBOX_DAYS * DAY_MS) continue
      await store.write(finishAction({ id: action.id, state: 'failed', reason: 'no relay took it in time', at: now }))
    }
    const before = now - Math.max(config().retention.ticks_days, MIN_KEPT_DAYS) * DAY_MS
    const sweep = { before, observedBefore: now - OBSERVATIONS_KEPT_DAYS * DAY_MS, limit: SWEEP_LIMIT }
    while (!this.#scope.isClosing && (await store.write(sweepTicks(sweep)))) {
      // One commit after the other, so that what else is to be written finds its turn.
    }
  }

  /** For work that is tried again anyway. */
  inBackground(what: string, work: () => Promise<void>): void {
    this.#scope.spawn(what, work)
  }
}
