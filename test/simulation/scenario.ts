/**
 * One run by one schedule: two homes buy, sell, pay and zap while the network loses, repeats and delays, relays and the mint go
 * away and lie, and nodes are killed at some commit. Then the weather clears, and the books must be right.
 */
import { hash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { sats } from '../../src/base/amounts.ts'
import { messageOf } from '../../src/base/errors.ts'
import { stringify } from '../../src/base/json.ts'
import type { PurchaseView } from '../../src/customer/view.ts'
import type { Store } from '../../src/store/store.ts'
import { agentOf, type Cast, customerOf, perform } from './deeds.ts'
import { seedEntropy } from './entropy.ts'
import { unfinished, violations } from './invariants.ts'
import { tempRoot } from './life.ts'
import type { LightningWallet } from './lightning-wallet.ts'
import { type Schedule, scheduleOf } from './schedule.ts'
import { Storm } from './storm.ts'
import { watchWebCrypto } from './web-crypto.ts'
import { type SimulatedMint, type SimulatedNode, World } from './world.ts'

export interface Outcome {
  /** What is wrong; empty for a good run. */
  readonly problems: readonly string[]
  readonly purchases: readonly PurchaseView[]
  /** Digests of all ledger entries and of all log lines. */
  readonly ledger: string
  readonly log: string
  readonly lines: readonly string[]
  readonly kills: number
  /** Of each node in the storm, as far as its last life made them. */
  readonly commits: readonly number[]
  /** What came of each deed, like `zap done`. */
  readonly deeds: readonly string[]
  readonly virtualMs: number
}

const PROVIDER_WORDS = 'leader monkey parrot ring guide accident before fence cannon height naive bean'
const CUSTOMER_WORDS = 'legal winner thank year wave sausage worth useful legal winner thank yellow'
/** By how many mints they are with, each with as many. */
const FUNDING_SATS = { 1: 200, 2: 240 } as const
const AGENT_SATS = 40
/** More than it may spend in a day. */
const AGENT_BUDGET = { per_tx_sats: 20, per_tick_sats: 20, per_day_sats: 30 }
const YEAR_S = 31_536_000
const SETTLE_MS = 4000
const STORM_MS = 80_000
/** After the storm; what is owed is asked for again within this. */
const AFTERMATH_MS = 6 * 3600_000
const AWAKE_MS = 3000
const SLEEP_MS = 4000
const MAX_SLEEP_MS = 32_000

export const simulate = (seed: number): Promise<Outcome> => playSchedule(scheduleOf(seed))

export async function playSchedule(schedule: Schedule): Promise<Outcome> {
  const restoreEntropy = seedEntropy(schedule.seed)
  const dir = mkdtempSync(join(tempRoot(), 'pylon-sim-'))
  const webCrypto = watchWebCrypto()
  const world = new World(schedule.seed, dir, schedule, webCrypto)
  try {
    return await play(world, schedule)
  } finally {
    world.end()
    webCrypto.restore()
    restoreEntropy()
    rmSync(dir, { recursive: true, force: true })
  }
}

async function play(world: World, { isFree, hasAgents, hasWallet, mints, steps }: Schedule): Promise<Outcome> {
  const funded = FUNDING_SATS[mints]
  const startedAt = world.clock.now()
  const provider = world.node({
    name: 'provider',
    words: PROVIDER_WORDS,
    mode: hasAgents ? 'both' : 'provider',
    receiveBy: hasWallet ? 'nwc' : 'mint',
    substrate: world.substrate,
  })
  const customer = world.node({ name: 'customer', words: CUSTOMER_WORDS, mode: 'host', receiveBy: 'mint' })
  await world.finish(Promise.all([provider.start(), customer.start()]))
  await world.clock.run(SETTLE_MS)
  for (const mint of world.mints) await fund(world, customer, mint, funded / mints)
  if (hasAgents) await settleAgents(world, { provider, customer })

  if (world.wallet !== undefined) await connectWallet(world, provider, world.wallet)
  const storm = new Storm(world)
  const commitsOf = () => world.nodes.map((one) => (one.isUp ? one.node.store.commits : 0))
  const before = commitsOf()
  const problems: string[] = []
  const deeds: string[] = []
  let open = 0
  for (const [index, step] of steps.entries()) {
    world.clock.after(step.atMs, () => {
      if ('fault' in step) return storm.begin(step)
      open++
      perform({ world, provider, customer }, step, `${step.do}-${index}`, step.salt)
        .then((came) => deeds.push(`${step.do} ${came}`))
        .catch((error: unknown) => problems.push(`${step.do}-${index}: ${messageOf(error)}`))
        .finally(() => open--)
    })
  }
  await world.clock.run(STORM_MS)
  const commits = commitsOf().map((count, i) => count - (before[i] ?? 0))
  storm.end()

  await calmDown(world, () => open === 0)
  if (open > 0) problems.push(`${open} deeds have no end`)
  const down = world.nodes.filter(({ isUp }) => !isUp).map(({ name }) => `${name} is down in the end`)
  problems.push(...storm.problems, ...world.failures, ...down)
  // What is in the books of a node that does not run nobody can ask.
  if (down.length > 0) return { ...NOTHING_SEEN, problems, lines: world.log, kills: storm.kills, commits, deeds }
  problems.push(...(await violations(world, { funded, isFree })))
  return {
    problems,
    purchases: customer.customer.list({ limit: 100 }),
    virtualMs: world.clock.now() - startedAt,
    ledger: hash('sha256', world.nodes.map(({ node }) => ledgerText(node.store)).join('\n')),
    log: hash('sha256', world.log.join('')),
    lines: world.log,
    kills: storm.kills,
    commits,
    deeds: [...deeds, ...world.nodes.flatMap(({ node }) => endsOf(node.store))],
  }
}

const NOTHING_SEEN = { purchases: [], ledger: '', log: '', virtualMs: 0 }

/** Until all has its end. Where nobody does anything all machines sleep: only who waits for a time has it pass, at little cost. */
async function calmDown(world: World, isDone: () => boolean): Promise<void> {
  const { clock, nodes } = world
  const commits = () => nodes.map((one) => (one.isUp ? one.node.store.commits : -1)).join()
  const isQuiet = () => isDone() && nodes.every(({ isUp }) => isUp) && unfinished(world).length === 0
  const until = clock.now() + AFTERMATH_MS
  for (let sleepMs = SLEEP_MS, seen = ''; clock.now() < until; await clock.run(AWAKE_MS)) {
    const now = `${isDone()} ${commits()}`
    if (now !== seen) {
      if (isQuiet()) return
      sleepMs = SLEEP_MS
    } else {
      clock.suspend(sleepMs)
      sleepMs = Math.min(sleepMs * 2, MAX_SLEEP_MS)
    }
    seen = now
  }
}

async function connectWallet(world: World, provider: SimulatedNode, wallet: LightningWallet): Promise<void> {
  await world.finish(provider.node.parts.lightning.get().connection.connect(wallet.url))
  wallet.isWell = false
}

async function fund(world: World, customer: SimulatedNode, { url, mint }: SimulatedMint, amount: number): Promise<void> {
  const wallet = customer.wallets.of(customerOf(customer))
  const invoice = await world.finish(
    wallet.createInvoice({
      ...{ idempotencyKey: `funding ${url}`, cause: { type: 'owner', id: 'funding' }, amountSats: sats(amount), mintUrl: url },
      creditAccount: 'customer/equity/funding',
    }),
  )
  mint.payFromNowhere(invoice.request)
  if (!(await world.clock.run(120_000, () => wallet.invoice(`funding ${url}`)?.state === 'settled')))
    throw new Error('the funding never came')
}

/** Two agents that think of nothing by themselves: ada, who has some sats, and bob, whom she may zap. */
async function settleAgents(world: World, { provider, customer }: Omit<Cast, 'world'>): Promise<void> {
  const spec = { heartbeat_s: YEAR_S, autonomy: 'autonomous', budget: AGENT_BUDGET } as const
  await world.finish(Promise.all([provider.host.spawn({ name: 'bob', ...spec }), customer.host.spawn({ name: 'ada', ...spec })]))
  await world.clock.run(SETTLE_MS)
  await world.finish(customer.wallets.transfer(customerOf(customer), agentOf(customer, 'ada'), sats(AGENT_SATS), 'fund-ada'))
}

/** How ended what nodes began by themselves. */
const endsOf = (store: Store): string[] =>
  store
    .sql(
      `SELECT 'purchase ' || status AS what FROM purchases UNION ALL SELECT 'purse move ' || state FROM purse_moves
       UNION ALL SELECT 'payout ' || state FROM payouts UNION ALL SELECT 'payment by nwc ' || state FROM nwc_payments
       UNION ALL SELECT 'invoice by nwc ' || state FROM nwc_invoices UNION ALL SELECT 'nutzap out ' || state FROM nutzap_sends
       UNION ALL SELECT 'lease ' || state || iif(starts_at IS NULL, ' unserved', '') FROM leases UNION ALL SELECT 'rental ' || state || iif(refunded_msats > 0, ' with a refund', '') FROM rentals
       UNION ALL SELECT 'nutzap in ' || state FROM nutzaps UNION ALL SELECT 'request payment ' || state FROM request_payments`,
    )
    .all()
    .map((row) => String(row['what']))

function ledgerText(store: Store): string {
  const entries = store.sql('SELECT * FROM ledger_entries ORDER BY rowid').all()
  const postings = store.sql('SELECT * FROM postings ORDER BY entry_id, account').all()
  return stringify([entries, postings])
}
