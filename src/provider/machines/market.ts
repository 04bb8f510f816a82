/** What this node rents out and to whom: terms, classes, places that are free, offers, and the class of jobs; looks, never changes. */
import type { Clock } from '../../base/clock.ts'
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import { given } from '../../base/given.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { RuntimeOffer } from '../../nostr/control/offers.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import type { Keyring } from '../../nostr/types.ts'
import { countRefundsCaused, countUnpaid } from '../../store/selling/leases.ts'
import { runtimesIn, runtimesOf } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import { allowsUnisolated, assertIsolation, type Terms, termsOf } from './authorisation.ts'
import { chooseClass, classesOf, freeOf, type RuntimeClass } from './classes.ts'
import { fail } from './failures.ts'
import { NODE_ENDED } from './lease-end.ts'
import type { MachineCommand } from './order.ts'
import { LIVING_STATES } from './runtime-life.ts'
import type { Substrates } from './substrates.ts'

/** Leases that were not paid, within the time of an invoice: of one stranger, and of all who brought no token. Each costs an invoice. */
const MAX_UNPAID_PER_TENANT = 16
const MAX_UNPAID = 200
/** After so many leases within an hour that one tenant paid and had given back nothing is rented to it for a while. */
const MAX_REFUNDS_CAUSED = 5
const HOUR_MS = 3_600_000

export interface MarketDeps {
  readonly store: Store
  readonly clock: Clock
  readonly config: () => RuntimesConfig
  readonly network: 'sandbox' | 'live'
  readonly keyring: Keyring
  readonly substrates: Substrates
  readonly mints: () => readonly string[]
  readonly lockPubkey: () => string
}

export class Market {
  readonly #deps: MarketDeps
  /** Places are counted and taken one after the other. */
  readonly #placing = new KeyedQueue()

  constructor(deps: MarketDeps) {
    this.#deps = deps
  }

  /** Whether strangers may run where nothing isolates. */
  get mayUnisolated(): boolean {
    return allowsUnisolated(this.#deps.config(), this.#deps.network)
  }

  classes(): RuntimeClass[] {
    return classesOf(this.#deps.config(), this.#deps.substrates.providers)
  }

  free(entry: RuntimeClass): number {
    const living = runtimesIn(this.#deps.store, LIVING_STATES).filter((row) => row.runtimeClass === entry.name).length
    return freeOf(entry, living, this.#deps.substrates.capacity(entry.provider).free)
  }

  /** Commits what takes a place of the class. @throws ControlError capacity_exhausted; as the commit does */
  async takePlace(runtimeClass: string, commit: () => Promise<void>): Promise<void> {
    await this.#placing.run('', async () => {
      const entry = this.classes().find((candidate) => candidate.name === runtimeClass)
      if (entry === undefined || this.free(entry) < 1) throw fail('capacity_exhausted', `no place of the class ${runtimeClass} is free now`)
      await commit()
    })
  }

  /** @throws ControlError for what speaks against it before anything is spent */
  admit(requester: string, command: MachineCommand): { entry: RuntimeClass; terms: Terms } {
    const { substrates, keyring, config, store } = this.#deps
    const terms = termsOf({ pubkey: requester, isOwn: keyring.owns(requester) }, new Set(config().allowlist.map(parsePubkey)))
    const entry = this.#choose(command, terms)
    assertIsolation(terms, substrates.probe(entry.provider).isolated, this.mayUnisolated)
    if (!keyring.owns(requester)) {
      const theirOwn = runtimesOf(store, requester).filter((row) => row.state !== 'gone')
      if (theirOwn.length >= config().max_per_owner) throw fail('rate_limited', `you have ${theirOwn.length} runtimes`, 'tear one down')
    }
    if (terms === 'lease') this.assertMayOwe(requester, command.lease_token)
    substrates.assertSpeaks(entry.provider)
    if (this.free(entry) < 1) throw fail('capacity_exhausted', `no place of the class ${entry.name} is free now`)
    return { entry, terms }
  }

  /** @throws ControlError rate_limited when too many leases were asked for and not paid, or paid and given back */
  assertMayOwe(tenant: string, token: string | undefined): void {
    const { store, clock, config } = this.#deps
    const refunds = countRefundsCaused(store, { tenant, since: clock.now() - HOUR_MS, except: NODE_ENDED })
    if (refunds >= MAX_REFUNDS_CAUSED)
      throw fail('rate_limited', `${refunds} of your leases were paid and given back within an hour`, 'try later')
    const unpaid = countUnpaid(store, { tenant, since: clock.now() - config().payment_expiry_s * 1000 })
    if (unpaid.theirs >= MAX_UNPAID_PER_TENANT)
      throw fail('rate_limited', `you have not paid for ${unpaid.theirs} leases`, 'pay for one of them, or try later')
    if (token === undefined && unpaid.all >= MAX_UNPAID)
      throw fail('rate_limited', 'too many leases wait for payment', 'try later, or send a lease_token')
  }

  /** What strangers can rent now. */
  offers(): RuntimeOffer[] {
    return this.classes()
      .filter((entry) => this.#sellable(entry).ok)
      .map((entry) => this.#offerOf(entry))
  }

  /** Whether each is announced to strangers; if not, why. */
  offerStatuses() {
    return this.classes().map((entry) => {
      const verdict = this.#sellable(entry)
      return {
        runtimeClass: entry.name,
        provider: entry.provider,
        region: entry.region,
        protocols: entry.protocols,
        priceMsatsPerHour: BigInt(entry.price_msats_per_hour),
        free: this.free(entry),
        total: this.#total(entry),
        published: verdict.ok,
        ...(verdict.ok ? {} : { reason: verdict.reason }),
      }
    })
  }

  /** The class that jobs of kind 5930 run in, or why there is none. */
  jobClass(): { entry: RuntimeClass } | { reason: string } {
    const wanted = this.#deps.config().job_class
    const fitting = this.#runners().filter((entry) =>
      wanted === '' ? entry.provider === 'incus' || entry.provider === 'local' : entry.name === wanted,
    )
    const entry = fitting.find((candidate) => {
      const probe = this.#deps.substrates.probe(candidate.provider)
      return probe.usable && probe.lacks !== 'runs' && (probe.isolated || this.mayUnisolated)
    })
    return entry === undefined ? { reason: 'no substrate here isolates runtimes; pylon doctor says how to get one' } : { entry }
  }

  /** Classes whose substrate runs one-shot commands. */
  #runners(): RuntimeClass[] {
    return this.classes().filter(({ provider }) => this.#deps.substrates.get(provider).collect !== undefined)
  }

  #choose(command: MachineCommand, terms: Terms): RuntimeClass {
    const { substrates } = this.#deps
    const protocol = command.command === 'provision' ? command.protocol : null
    const asked = command.provider
    if (terms === 'free' && asked !== undefined && !substrates.providers.includes(asked)) {
      throw fail(
        'provider_temporarily_disabled',
        `${asked} is not set up on this node`,
        `use provider ${substrates.providers.join(' or ') || '(none)'}`,
      )
    }
    const entry = chooseClass(protocol === null ? this.#runners() : this.classes(), {
      provider: asked,
      runtimeClass: command.runtime_class,
      protocol,
      paid: terms === 'lease',
    })
    const { usable, lacks } = substrates.probe(entry.provider)
    if (!usable) throw fail('provider_temporarily_disabled', `${entry.provider} is not usable now`, 'use another provider, or try later')
    const lacksIt = lacks === 'agents' ? protocol !== null : lacks === 'runs' && protocol === null && command.image === undefined
    if (lacksIt)
      throw fail('provider_temporarily_disabled', `${entry.provider} has no image for that`, 'use another provider, or try later')
    return entry
  }

  #total({ capacity, provider }: RuntimeClass): number {
    return Number.isFinite(capacity) ? capacity : this.#deps.substrates.capacity(provider).instances
  }

  /** Whether strangers can rent it now, or why not. */
  #sellable(entry: RuntimeClass): { ok: true } | { ok: false; reason: string } {
    const probe = this.#deps.substrates.probe(entry.provider)
    if (entry.price_msats_per_hour === 0) return { ok: false, reason: 'no price' }
    const lacksIt = probe.lacks === 'runs' || (probe.lacks === 'agents' && entry.protocols.length > 0)
    if (!probe.usable || lacksIt) return { ok: false, reason: probe.reason ?? 'the substrate is not usable' }
    if (!probe.isolated && !this.mayUnisolated) return { ok: false, reason: 'nothing isolates runtimes there' }
    if (this.#deps.mints().length === 0) return { ok: false, reason: 'no_mint' }
    return { ok: true }
  }

  #offerOf(entry: RuntimeClass): RuntimeOffer {
    const { substrates, mints, lockPubkey, config } = this.#deps
    const probe = substrates.probe(entry.provider)
    return {
      runtimeClass: entry.name,
      provider: entry.provider,
      region: entry.region,
      protocols: entry.protocols,
      priceMsatsPerHour: BigInt(entry.price_msats_per_hour),
      minLeaseS: entry.min_lease_s,
      maxLeaseS: entry.max_lease_s,
      capacity: { free: this.free(entry), total: this.#total(entry) },
      resources: given({ vcpuCount: entry.vcpu_count, memoryMib: entry.memory_mib, rootDiskGib: entry.root_disk_gib }),
      isolated: probe.isolated,
      mints: mints(),
      lockPubkey: lockPubkey(),
      policyConstraints: { network: probe.network ?? 'remote', max_per_owner: config().max_per_owner },
    }
  }
}
