/** The machine of the demo: the first node offers one, the second finds it, pays for a minute of it and runs a command there. */
import type { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { shortId } from '../terminal/table.ts'
import { inlineToml } from './demo-market.ts'
import { type Pylon, waitFor } from './demo-process.ts'

type Status = z.output<typeof nodeRoutes.status.response>
type Offer = z.output<typeof runtimesRoutes.listOffers.response>['offers'][number]

const CLASS = 'demo'
const LEASE_S = 60
/** Ten sats for that minute. */
const PRICE_MSATS_PER_HOUR = 600_000
const SCRIPT = 'echo "hello from $(uname -s)"'

export interface Rented {
  readonly offer: Offer
  readonly isolated: boolean
  readonly outcome: z.output<typeof runtimesRoutes.commandRuntime.response>
}

/** Puts the class into the configuration where it is not there yet; the running node takes it at once. */
export async function offerMachine(seller: Pylon): Promise<void> {
  const { value } = await seller.json('config', 'get', 'runtimes.classes')
  const classes = Array.isArray(value) ? (value as { name?: unknown }[]) : []
  const { runtimes } = await waitFor('the substrates to be looked at', 15_000, async () => {
    const status: Status = await seller.answer(nodeRoutes.status.response, ['status'])
    return status.runtimes.substrates.some((one) => one.usable) ? status : undefined
  })
  const incus = runtimes.substrates.find((one) => one.provider === 'incus' && one.usable)
  const chosen = incus ?? runtimes.substrates.find((one) => one.provider === 'local' && one.usable)
  if (chosen === undefined) throw new PylonError('demo_failed', 'No substrate is usable here: pylon doctor --sandbox says why.')
  // Play money and our own second node: elsewhere nothing unisolated is ever sold.
  if (!chosen.isolated) await seller.json('config', 'set', 'runtimes.allow_unisolated', 'true')
  if (classes.some((one) => one.name === CLASS)) return
  const fields = {
    name: CLASS,
    provider: chosen.provider,
    region: 'here',
    // For whoever goes on from here: agents can be provisioned in it too.
    protocols: ['pi', 'acp'],
    price_msats_per_hour: PRICE_MSATS_PER_HOUR,
    min_lease_s: LEASE_S,
  }
  await seller.json('config', 'set', 'runtimes.classes', `[${[...classes, fields].map(inlineToml).join(', ')}]`)
}

/** @throws demo_failed when it ends otherwise than it should */
export async function rentMachine(buyer: Pylon, seller: string): Promise<Rented> {
  const filter = ['runtime', 'offers', '--server', seller, '--class', CLASS]
  const offer = await waitFor('the offer of the machine', 20_000, async () => {
    const { offers } = await buyer.answer(runtimesRoutes.listOffers.response, filter)
    return offers[0]
  })
  const run = ['runtime', 'run', SCRIPT, '--server', seller, '--class', CLASS, '--run-timeout', String(LEASE_S), '--max-sats', '20']
  const outcome = await buyer.answer(runtimesRoutes.commandRuntime.response, run)
  if (outcome.paid_msats <= 0n) throw new PylonError('demo_failed', 'The machine was rented, but nothing was paid for it.')
  return { offer, isolated: offer.isolated, outcome }
}

/** What went over the wire. */
export function wireOfRental({ offer, outcome, isolated }: Rented): string[] {
  const { stdout = '', exit_code: code } = outcome.payload as { stdout?: string; exit_code?: number }
  return [
    `kind 30910 ${shortId(offer.event_id)} offers class ${offer.runtime_class} on ${offer.provider}, ${isolated ? 'isolated' : 'not isolated (play money only)'}`,
    'kind 24910 asks for a run; kind 24911 answers with the price and an invoice, paid at once',
    `kind 24912 brings exit code ${code ?? '?'}; ${outcome.runtime.runtime_id} is gone again`,
    ...stdout
      .trim()
      .split('\n')
      .slice(0, 1)
      .map((line) => `"${line}"`),
  ]
}
