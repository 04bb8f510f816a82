/** What this node rents out and to whom: terms, classes, places that are free, offers, and the class of jobs; looks, never changes. */
import type { Clock } from '../../base/clock.ts'
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import type { RuntimeOffer } from '../../nostr/control/offers.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import type { Keyring } from '../../nostr/types.ts'
import { countRefundsCaused, countUnpaid } from '../../store/selling/leases.ts'
import { runtimesIn, runtimesOf } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import { allowsUnisolated, assertIsolation, type Terms, termsOf } from './authorisation.ts'
import { chooseClass, classesOf, freeOf, type RuntimeClass } from './classes.ts'
import { fail } from './failures.ts'
import type { OfferStatus } from './machines.ts'
import type { MachineCommand } from './order.ts'
import { NODE_ENDED } from './settlement.ts'
import { LIVING_STATES } from './states.ts'
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
  readonly substrates: () => Substrates
  readonly mints: () => readonly string[]
  readonly lockPubkey: () => string
}

export type Market = ReturnType<typeof createMarket>

export function createMarket(deps: MarketDeps) {
  const { store, config, keyring, mints } = deps
  const allowlist = () => new Set(config().allowlist.map(parsePubkey))
  const terms = (requester: string): Terms => termsOf({ pubkey: requester, isOwn: keyring.owns(requester) }, allowlist())
  const mayUnisolated = () => allowsUnisolated(config(), deps.network)
  const classes = () => classesOf(config(), deps.substrates().providers)

  function livingOf(runtimeClass: string): number {
    return runtimesIn(store, LIVING_STATES).filter((row) => row.runtimeClass === runtimeClass).length
  }

  const total = ({ capacity, provider }: RuntimeClass) =>
    Number.isFinite(capacity) ? capacity : deps.substrates().capacity(provider).instances
  const free = (entry: RuntimeClass) => freeOf(entry, livingOf(entry.name), deps.substrates().capacity(entry.provider).free)

  /** Whether strangers can rent it now, or why not. */
  function sellable(entry: RuntimeClass): { ok: true } | { ok: false; reason: string } {
    const probe = deps.substrates().probe(entry.provider)
    if (entry.price_msats_per_hour === 0) return { ok: false, reason: 'no price' }
    const lacksIt = probe.lacks === 'runs' || (probe.lacks === 'agents' && entry.protocols.length > 0)
    if (!probe.usable || lacksIt) return { ok: false, reason: probe.reason ?? 'the substrate is not usable' }
    if (!probe.isolated && !mayUnisolated()) return { ok: false, reason: 'nothing isolates runtimes there' }
    if (mints().length === 0) return { ok: false, reason: 'no_mint' }
    return { ok: true }
  }

  function offerOf(entry: RuntimeClass): RuntimeOffer {
    return {
      runtimeClass: entry.name,
      provider: entry.provider,
      region: entry.region,
      protocols: entry.protocols,
      priceMsatsPerHour: BigInt(entry.price_msats_per_hour),
      minLeaseS: entry.min_lease_s,
      maxLeaseS: entry.max_lease_s,
      capacity: { free: free(entry), total: total(entry) },
      resources: {
        ...(entry.vcpu_count === undefined ? {} : { vcpuCount: entry.vcpu_count }),
        ...(entry.memory_mib === undefined ? {} : { memoryMib: entry.memory_mib }),
        ...(entry.root_disk_gib === undefined ? {} : { rootDiskGib: entry.root_disk_gib }),
      },
      isolated: deps.substrates().probe(entry.provider).isolated,
      mints: mints(),
      lockPubkey: deps.lockPubkey(),
      policyConstraints: { network: deps.substrates().probe(entry.provider).network ?? 'remote', max_per_owner: config().max_per_owner },
    }
  }

  /** @throws ControlError rate_limited when too many leases were asked for and not paid, or paid and given back */
  function assertMayOwe(tenant: string, token: string | undefined): void {
    const since = deps.clock.now() - config().payment_expiry_s * 1000
    const refunds = countRefundsCaused(store, { tenant, since: deps.clock.now() - HOUR_MS, except: NODE_ENDED })
    if (refunds >= MAX_REFUNDS_CAUSED)
      throw fail('rate_limited', `${refunds} of your leases were paid and given back within an hour`, 'try later')
    const unpaid = countUnpaid(store, { tenant, since })
    if (unpaid.theirs >= MAX_UNPAID_PER_TENANT)
      throw fail('rate_limited', `you have not paid for ${unpaid.theirs} leases`, 'pay for one of them, or try later')
    if (token === undefined && unpaid.all >= MAX_UNPAID)
      throw fail('rate_limited', 'too many leases wait for payment', 'try later, or send a lease_token')
  }

  /** Classes whose substrate runs one-shot commands. */
  const runners = () => classes().filter(({ provider }) => deps.substrates().get(provider).collect !== undefined)

  /** @throws ControlError for what speaks against it before anything is spent */
  function admit(requester: string, command: MachineCommand): { entry: RuntimeClass; terms: Terms } {
    const theirs = terms(requester)
    const protocol = command.command === 'provision' ? command.protocol : null
    const asked = command.provider
    if (theirs === 'free' && asked !== undefined && !deps.substrates().providers.includes(asked)) {
      throw fail(
        'provider_temporarily_disabled',
        `${asked} is not set up on this node`,
        `use provider ${deps.substrates().providers.join(' or ') || '(none)'}`,
      )
    }
    const entry = chooseClass(protocol === null ? runners() : classes(), {
      provider: asked,
      runtimeClass: command.runtime_class,
      protocol,
      paid: theirs === 'lease',
    })
    const probe = deps.substrates().probe(entry.provider)
    if (!probe.usable)
      throw fail('provider_temporarily_disabled', `${entry.provider} is not usable now`, 'use another provider, or try later')
    const lacksIt =
      probe.lacks === 'agents' ? protocol !== null : probe.lacks === 'runs' && protocol === null && command.image === undefined
    if (lacksIt)
      throw fail('provider_temporarily_disabled', `${entry.provider} has no image for that`, 'use another provider, or try later')
    assertIsolation(theirs, probe.isolated, mayUnisolated())
    if (!keyring.owns(requester)) {
      const theirOwn = runtimesOf(store, requester).filter((row) => row.state !== 'gone')
      if (theirOwn.length >= config().max_per_owner) throw fail('rate_limited', `you have ${theirOwn.length} runtimes`, 'tear one down')
    }
    if (theirs === 'lease') assertMayOwe(requester, command.lease_token)
    deps.substrates().assertSpeaks(entry.provider)
    if (free(entry) < 1) throw fail('capacity_exhausted', `no place of the class ${entry.name} is free now`)
    return { entry, terms: theirs }
  }

  function offerStatus(entry: RuntimeClass): OfferStatus {
    const verdict = sellable(entry)
    return {
      runtimeClass: entry.name,
      provider: entry.provider,
      region: entry.region,
      protocols: entry.protocols,
      priceMsatsPerHour: BigInt(entry.price_msats_per_hour),
      free: free(entry),
      total: total(entry),
      published: verdict.ok,
      ...(verdict.ok ? {} : { reason: verdict.reason }),
    }
  }

  function jobClassOf(): { entry: RuntimeClass } | { reason: string } {
    const wanted = config().job_class
    const fitting = runners().filter((entry) =>
      wanted === '' ? entry.provider === 'incus' || entry.provider === 'local' : entry.name === wanted,
    )
    const entry = fitting.find((candidate) => {
      const probe = deps.substrates().probe(candidate.provider)
      return probe.usable && probe.lacks !== 'runs' && (probe.isolated || mayUnisolated())
    })
    return entry === undefined ? { reason: 'no substrate here isolates runtimes; pylon doctor says how to get one' } : { entry }
  }

  return {
    mayUnisolated,
    classes,
    free,
    /** 0 for a class that is no more. */
    placesOf(runtimeClass: string): number {
      const entry = classes().find((candidate) => candidate.name === runtimeClass)
      return entry === undefined ? 0 : free(entry)
    },
    admit,
    assertMayOwe,
    /** What strangers can rent now. */
    offers: () =>
      classes()
        .filter((entry) => sellable(entry).ok)
        .map(offerOf),
    offerStatuses: (): OfferStatus[] => classes().map(offerStatus),
    jobClass: jobClassOf,
  }
}
