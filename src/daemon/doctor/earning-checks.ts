/**
 * Why a provider earns nothing, in order: is it announced, does anybody hear, who asked, what was refused, what was not paid, what is the
 * price. Nothing where it earns. Pure but for `checkEarning`, which reads what is known.
 */
import { howToStart } from '../../base/advice.ts'
import { rfc3339 } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { priceOf } from '../../provider/pricing.ts'
import { earningsSummary } from '../../store/money/earnings.ts'
import { type AskedJobs, announcedTo, hasEarned, jobsAsked, leasesAsked } from '../../store/selling/custom.ts'
import type { PylonNode } from '../node.ts'
import type { ReadServices } from '../services.ts'
import { type Check, ok, warning } from './check.ts'

const DAY_MS = 86_400_000
const MONTH_MS = 30 * DAY_MS
const RELAYS = 'Use other relays: pylon config set node.relays \'["wss://..."]\''

export interface EarningFacts {
  readonly nowMs: number
  /** How a stopped node is started. */
  readonly startStep?: string | undefined
  readonly announced: readonly { readonly relay: string; readonly state: string; readonly words: string | null; readonly at: number }[]
  /** Of a running node: each relay, and when it last delivered what was asked of it. */
  readonly relays: readonly { readonly url: string; readonly provenAt?: number | undefined }[] | undefined
  /** Of the last day. */
  readonly asked: readonly AskedJobs[]
  readonly leases: number
  /** Of the last 30 days. */
  readonly earnedMsats: bigint
  readonly costsMsats: bigint
  /** What is sold now; undefined while the node is stopped. */
  readonly kinds: readonly number[] | undefined
  readonly config: Config
}

export function checkEarning(read: ReadServices, node: PylonNode | undefined): Check[] {
  const { store, clock, network } = read
  const config = read.config()
  const mode = node?.mode ?? config.node.mode
  const nowMs = clock.now()
  if (mode === 'host' || hasEarned(store, nowMs - DAY_MS)) return []
  const month = earningsSummary(store, { sinceMs: nowMs - MONTH_MS, limit: 0 })
  return whyNotEarning({
    ...{ nowMs, config, startStep: node === undefined ? howToStart(network) : undefined },
    announced: announcedTo(store),
    relays: node?.parts.nostr.peek()?.health(),
    asked: jobsAsked(store, nowMs - DAY_MS),
    leases: leasesAsked(store, nowMs - DAY_MS),
    earnedMsats: month.totalMsats,
    costsMsats: month.outgoing.filter(({ isCost }) => isCost).reduce((sum, { amountMsats }) => sum + amountMsats, 0n),
    kinds: node?.parts.provider.up()?.status().kinds,
  })
}

export function whyNotEarning(facts: EarningFacts): Check[] {
  return [announcement(facts), hearing(facts), requests(facts), refusals(facts), unpaid(facts), prices(facts), costs(facts)].flat()
}

function announcement({ announced, kinds, startStep }: EarningFacts): Check {
  const name = 'earning: announced'
  if (kinds?.length === 0)
    return warning(name, 'Nothing is sold now, so nothing is announced.', 'See backends and mints here; pylon status lists the kinds')
  if (announced.length === 0) return warning(name, 'No announcement was made yet.', startStep ?? 'Look again in a minute: pylon doctor')
  const took = announced.filter(({ state }) => state === 'accepted')
  const others = announced
    .filter(({ state }) => state !== 'accepted')
    .map(({ relay, state, words }) => `${relay} (${state}${words === null ? '' : `: ${words}`})`)
  const not = others.length === 0 ? '' : ` Not at ${others.join(', ')}.`
  const [first] = took
  if (first === undefined) return warning(name, `No relay has the announcement.${not}`, RELAYS)
  return ok(name, `At ${took.map(({ relay }) => relay).join(', ')} since ${rfc3339(first.at)}.${not}`)
}

/** A relay that gives our own canary back would give us requests of others. */
function hearing({ relays, nowMs }: EarningFacts): Check[] {
  const name = 'earning: heard'
  if (relays === undefined) return []
  const proven = relays.filter(({ provenAt }) => provenAt !== undefined)
  if (proven.length === 0)
    return [
      warning(
        name,
        'No relay has given back what was sent to it yet: requests may not arrive.',
        `pylon doctor again in a minute. ${RELAYS}`,
      ),
    ]
  const words = proven.map(({ url, provenAt = nowMs }) => `${url} (${Math.max(0, Math.round((nowMs - provenAt) / 1000))} s ago)`)
  return [ok(name, `These deliver: ${words.join(', ')}.`)]
}

const sum = (jobs: readonly AskedJobs[]): number => jobs.reduce((total, { jobs }) => total + jobs, 0)

function requests({ asked, leases, kinds }: EarningFacts): Check {
  const name = 'earning: asked'
  const all = sum(asked) + leases
  if (all > 0) return ok(name, `${sum(asked)} jobs and ${leases} machines were asked for in the last day.`)
  const sold = kinds === undefined ? '' : ` (kinds ${kinds.join(', ')})`
  return warning(
    name,
    `Nobody asked for anything in the last day${sold}.`,
    'Sell more kinds, be on the relays where customers are, or buy one yourself to see that it works: pylon job submit',
  )
}

function refusals({ asked }: EarningFacts): Check[] {
  const refused = asked.filter(({ status }) => status === 'refused' || status === 'failed')
  if (refused.length === 0) return []
  const byCode = [...Map.groupBy(refused, ({ code }) => code ?? 'no code')].map(([code, jobs]) => `${sum(jobs)} for ${code}`)
  return [
    warning(
      'earning: refused',
      `${sum(refused)} jobs were refused or failed in the last day: ${byCode.join(', ')}.`,
      'docs/errors.md says what each code means; pylon jobs list shows them',
    ),
  ]
}

function unpaid({ asked }: EarningFacts): Check[] {
  const count = sum(asked.filter(({ status, priced }) => priced && (status === 'quoted' || status === 'expired')))
  if (count === 0) return []
  return [
    warning(
      'earning: not paid',
      `${count} quotes of the last day were not paid.`,
      'Perhaps the price, or a mint that customers cannot pay: pylon config show lists provider.prices',
    ),
  ]
}

function prices({ kinds = [], config }: EarningFacts): Check[] {
  if (kinds.length === 0) return []
  const words = kinds.map((kind) => {
    const { amount_msats, unit } = priceOf(config, kind)
    return `${kind} ${amount_msats === 0 ? 'free' : `${amount_msats / 1000} sats a ${unit.replace('_', ' ')}`}`
  })
  const isFree = kinds.every((kind) => priceOf(config, kind).amount_msats === 0)
  const message = `Priced: ${words.join('; ')}.`
  return [
    isFree
      ? warning('earning: prices', `${message} All of it is free.`, 'pylon config set provider.prices.5001.amount_msats 2000')
      : ok('earning: prices', message),
  ]
}

function costs({ earnedMsats, costsMsats }: EarningFacts): Check[] {
  if (costsMsats === 0n || costsMsats < earnedMsats) return []
  return [
    warning(
      'earning: costs',
      `Fees of the last 30 days came to ${costsMsats / 1000n} sats, income to ${earnedMsats / 1000n}.`,
      'Raise the prices, or use a mint with lower fees: pylon earnings',
    ),
  ]
}
