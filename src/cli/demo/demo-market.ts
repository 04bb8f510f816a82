/** The market of the demo: what the first node sells, and the four jobs that the second one buys. */
import type { z } from 'zod'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { stringify } from '../../base/json.ts'
import { purchasesRoutes } from '../../control/contract/jobs.ts'
import { type Pylon, waitFor } from './demo-process.ts'

type Purchase = z.output<typeof purchasesRoutes.getPurchase.response>

export const SUMMARY_KIND = 5001
const SUMMARY_PRICE = { amount_msats: 21_000, unit: 'job' }
/** A command of the owner: writes in capitals, and fails on what is nothing but BOOM. */
export const SHOUT_KIND = 5999
const SHOUT_PRICE = { amount_msats: 5_000, unit: 'job' }
const SHOUT = { kind: SHOUT_KIND, command: ['sh', '-c', 'tr a-z A-Z | grep -v BOOM'] }

const TEXT = [
  'Nostr is a protocol of signed events and simple relays.',
  'Anyone can run a relay, and a client may use as many relays as it likes.',
  'A data vending machine reads a job request from relays, asks for a few sats, does the work and publishes the result.',
  'Payments travel over Lightning or as ecash, so that neither side needs an account.',
  'When the work fails, the provider sends the money back as a token that only the customer can spend.',
  'Whoever can sign an event can buy, and whoever can compute can sell.',
].join(' ')

const REPLIES_PER_HOUR = 100

export interface Sale {
  readonly title: string
  readonly args: readonly string[]
  readonly expected: Purchase['status']
}

export const SALES: readonly Sale[] = [
  {
    title: 'a summary, paid by Lightning invoice',
    args: ['--kind', String(SUMMARY_KIND), '--input', TEXT, '--pay-with', 'invoice'],
    expected: 'completed',
  },
  {
    title: 'a summary, paid by a locked Cashu token in the request',
    args: ['--kind', String(SUMMARY_KIND), '--input', `${TEXT} It all runs on your own machine.`, '--pay-with', 'token'],
    expected: 'completed',
  },
  {
    title: 'capitals by an exec command, encrypted end to end',
    args: ['--kind', String(SHOUT_KIND), '--input', 'nobody but the provider reads this', '--encrypt', '--pay-with', 'invoice'],
    expected: 'completed',
  },
  {
    title: 'a job that fails after payment, refunded by itself',
    args: ['--kind', String(SHOUT_KIND), '--input', 'boom', '--pay-with', 'token'],
    expected: 'refunded',
  },
]

/** Sets prices and the exec kind where they are not set yet; the running node takes them at once. */
export async function stockUp(seller: Pylon): Promise<void> {
  const { value: exec } = await seller.json('config', 'get', 'provider.exec')
  const { value: prices } = await seller.json('config', 'get', 'provider.prices')
  const commands = Array.isArray(exec) ? (exec as { kind?: unknown }[]) : []
  const known = (typeof prices === 'object' && prices !== null ? prices : {}) as Record<string, unknown>
  const missing: [string, string][] = []
  if (!commands.some((command) => command.kind === SHOUT_KIND)) {
    missing.push(['provider.exec', `[${[...commands, SHOUT].map(inlineToml).join(', ')}]`])
  }
  if (known[SUMMARY_KIND] === undefined) missing.push([`provider.prices.${SUMMARY_KIND}`, inlineToml(SUMMARY_PRICE)])
  if (known[SHOUT_KIND] === undefined) missing.push([`provider.prices.${SHOUT_KIND}`, inlineToml(SHOUT_PRICE)])
  // Neighbours that meet in every demo would soon be stopped as two bots in a loop.
  const { value: replies } = await seller.json('config', 'get', 'host.replies_per_hour')
  if (typeof replies === 'number' && replies < REPLIES_PER_HOUR) missing.push(['host.replies_per_hour', String(REPLIES_PER_HOUR)])
  for (const [key, value] of missing) await seller.json('config', 'set', key, value)
}

/** As a value on one line of TOML. */
export function inlineToml(table: object): string {
  const fields = Object.entries(table).map(([name, value]) => `${name} = ${stringify(value)}`)
  return `{ ${fields.join(', ')} }`
}

/** Buys one job and waits for its end. @throws demo_failed when it ends otherwise than expected */
export async function buy(buyer: Pylon, seller: string, sale: Sale): Promise<Purchase> {
  const args = ['job', 'submit', ...sale.args, '--provider', seller, '--max-sats', '50', '--timeout', '30', '--wait']
  const job = await waitFor(`an offer for ${sale.title}`, 15_000, async () => {
    try {
      return await buyer.answer(purchasesRoutes.submitPurchase.response, args, [0, 1])
    } catch (error) {
      // The announcement may still be on its way to the relay.
      if (isPylonError(error, 'no_offer')) return undefined
      throw error
    }
  })
  if (job.status !== sale.expected) {
    throw new PylonError(
      'demo_failed',
      `Bought ${sale.title}: ${job.status} instead of ${sale.expected} (${job.error?.message ?? job.reason ?? 'no reason'}).`,
    )
  }
  return job
}
