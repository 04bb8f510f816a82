/**
 * One run by one seed: a customer buys jobs of a provider while the network loses, repeats and delays, relays and the mint go
 * away and come back, and nodes are killed at some commit. Then the weather clears, and the books must be right.
 */
import { hash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { sats } from '../../src/base/amounts.ts'
import { stringify } from '../../src/base/json.ts'
import type { PurchaseView } from '../../src/customer/view.ts'
import { auditLedger } from '../../src/store/money/ledger.ts'
import { openOperations } from '../../src/store/money/operations.ts'
import type { Store } from '../../src/store/store.ts'
import { seedEntropy } from './entropy.ts'
import { tempRoot } from './life.ts'
import { CALM, type Weather } from './network.ts'
import { MINT, RELAYS, type SimulatedNode, World } from './world.ts'

export interface Outcome {
  /** What is wrong; empty for a good run. */
  readonly problems: readonly string[]
  readonly purchases: readonly PurchaseView[]
  /** Digests of all ledger entries and of all log lines. */
  readonly ledger: string
  readonly log: string
  readonly lines: readonly string[]
  readonly kills: number
  readonly virtualMs: number
}

const PROVIDER_WORDS = 'leader monkey parrot ring guide accident before fence cannon height naive bean'
const CUSTOMER_WORDS = 'legal winner thank year wave sausage worth useful legal winner thank yellow'
const FUNDING_SATS = 200
const SETTLE_MS = 20_000
const STORM_MS = 150_000
const ORDER_MS = 90_000
const JOB_TIMEOUT_MS = 600_000
/** After the storm; what is owed is asked for again within this. */
const AFTERMATH_MS = 6 * 3600_000
const STEP_MS = 15_000
/** What nobody got: expenses of all, less the income of all. */
const COST = `SELECT coalesce(sum(amount_msats), 0) AS n FROM account_balances WHERE account GLOB '*/expense/*' OR account GLOB '*/income/*'`

export async function simulate(seed: number): Promise<Outcome> {
  const restoreEntropy = seedEntropy(seed)
  const dir = mkdtempSync(join(tempRoot(), 'pylon-sim-'))
  const world = new World(seed, dir)
  try {
    return await play(world)
  } finally {
    world.end()
    restoreEntropy()
    rmSync(dir, { recursive: true, force: true })
  }
}

async function play(world: World): Promise<Outcome> {
  const startedAt = world.clock.now()
  const provider = world.node({ name: 'provider', words: PROVIDER_WORDS, mode: 'provider' })
  const customer = world.node({ name: 'customer', words: CUSTOMER_WORDS, mode: 'host' })
  await world.finish(Promise.all([provider.start(), customer.start()]))
  await world.clock.run(SETTLE_MS)
  await fund(world, customer)

  const storm = new Storm(world)
  storm.begin([provider, customer])
  const orders = 2 + world.below(2)
  for (let i = 0; i < orders; i++) world.clock.after(world.below(ORDER_MS), () => storm.track(order(world, customer, i)))
  await world.clock.run(STORM_MS)
  storm.end()

  for (let waitedMs = 0; waitedMs < AFTERMATH_MS; waitedMs += STEP_MS) {
    await world.clock.run(STEP_MS)
    if (isQuiet(world)) break
  }
  const problems = [...storm.problems, ...world.failures, ...(await audit(world, customer, provider))]
  return {
    problems,
    purchases: customer.customer.list({ limit: 100 }),
    virtualMs: world.clock.now() - startedAt,
    ledger: hash('sha256', world.nodes.map(({ node }) => ledgerText(node.store)).join('\n')),
    log: hash('sha256', world.log.join('')),
    lines: world.log,
    kills: storm.kills,
  }
}

async function fund(world: World, { node, wallets }: SimulatedNode): Promise<void> {
  const wallet = wallets.of({ kind: 'customer', pubkey: node.keyring.customer().pubkey })
  const invoice = await world.finish(
    wallet.createInvoice({
      idempotencyKey: 'funding',
      cause: { type: 'owner', id: 'funding' },
      amountSats: sats(FUNDING_SATS),
      mintUrl: MINT,
      creditAccount: 'customer/equity/funding',
    }),
  )
  world.mint.payFromNowhere(invoice.request)
  if (!(await world.clock.run(120_000, () => wallet.invoice('funding')?.state === 'settled'))) throw new Error('the funding never came')
}

/** Buys one job, and tries again under the same key where the node is down or refuses for now. */
async function order(world: World, customer: SimulatedNode, index: number): Promise<void> {
  const text = Array.from({ length: 12 + world.below(20) }, () => `word${world.below(1000)}`).join(' ')
  const payWith = world.below(5) < 3 ? 'invoice' : 'token'
  const encrypt = payWith === 'token'
  const isCancelled = world.below(4) === 0
  const inputs = [{ data: `${text}. ${text}.`, type: 'text' as const }]
  const key = `order-${index}`
  for (let attempt = 0; attempt < 20; attempt++) {
    if (customer.isUp) {
      try {
        const wanted = { kind: 5001, inputs, params: [], encrypt, pay: 'auto', payWith, timeoutMs: JOB_TIMEOUT_MS } as const
        await customer.customer.submit(wanted, attempt === 0 ? key : `${key}-${attempt}`)
        break
      } catch {
        // The node is going down, or saw no offer: the next attempt is another purchase.
      }
    }
    await world.clock.sleep(10_000)
  }
  if (!isCancelled) return
  await world.clock.sleep(world.below(20_000))
  if (customer.isUp) await customer.customer.cancel(key).catch(() => undefined)
}

/** Bad weather, and what else goes wrong. */
class Storm {
  readonly problems: string[] = []
  kills = 0
  readonly #world: World
  #isOver = false
  readonly #down = new Set<SimulatedNode>()

  constructor(world: World) {
    this.#world = world
  }

  begin(nodes: readonly SimulatedNode[]): void {
    const world = this.#world
    const { network } = world
    const some = (most: number) => world.random.float() * most
    network.weather = {
      ...{ minMs: 5, maxMs: 50 + world.below(3000), requestLost: some(0.1), answerLost: some(0.2), answerLate: some(0.1) },
      ...{ requestTwice: some(0.1), frameLost: some(0.15), frameTwice: some(0.3) },
    } satisfies Weather
    for (const origin of RELAYS) {
      this.#sometime(() => network.cut(origin))
      this.#sometime(() => network.silence(origin))
      this.#sometime(
        () => network.down(origin),
        () => network.up(origin),
      )
    }
    if (world.below(2) === 0)
      this.#sometime(
        () => network.down(MINT),
        () => network.up(MINT),
      )
    if (world.below(2) === 0)
      this.#sometime(
        () => world.mintFaults.apply({ hold_melts: 2 }),
        () => this.#releaseMelts(),
      )
    if (world.below(4) === 0) this.#sometime(() => world.mint.rotateKeyset(world.isFree ? 0 : undefined))
    for (const node of nodes) if (world.below(3) > 0) this.#sometime(() => this.#killSoon(node))
  }

  /** The weather clears and everything that is down comes up. */
  end(): void {
    this.#isOver = true
    const { network } = this.#world
    network.weather = CALM
    for (const origin of [...RELAYS, MINT]) network.up(origin)
    this.#releaseMelts()
    for (const node of this.#world.nodes) node.killAt({ commits: Number.POSITIVE_INFINITY, when: 'before', onDead: () => undefined })
    for (const node of this.#down) this.#restart(node)
  }

  track(work: Promise<void>): void {
    work.catch((error: unknown) => this.problems.push(String(error)))
  }

  #sometime(begin: () => void, end: () => void = () => undefined): void {
    const { clock } = this.#world
    clock.after(this.#world.below(ORDER_MS), () => {
      if (this.#isOver) return
      begin()
      clock.after(this.#world.below(60_000), end)
    })
  }

  /** A payment that hangs goes through in the end, or does not. */
  #releaseMelts(): void {
    this.#world.mintFaults.apply({ hold_melts: 0 })
    this.#world.mint.releaseMelts(this.#world.below(2) === 0 ? 'paid' : 'failed')
  }

  #killSoon(node: SimulatedNode): void {
    if (!node.isUp) return
    const when = this.#world.below(2) === 0 ? 'before' : 'after'
    node.killAt({
      commits: 1 + this.#world.below(25),
      when,
      onDead: () => {
        this.kills++
        this.#down.add(node)
        this.#world.clock.after(this.#world.below(30_000), () => this.#restart(node))
      },
    })
  }

  #restart(node: SimulatedNode): void {
    if (this.#down.delete(node)) this.track(node.start())
  }
}

/** Nothing is under way any more. */
function isQuiet(world: World): boolean {
  return world.nodes.every(({ isUp }) => isUp) && owed(world).length === 0
}

/** What is still under way, or owed. */
function owed(world: World): string[] {
  return world.nodes.flatMap((one) => {
    const { store } = one.node
    const jobs = store
      .sql("SELECT id, status FROM jobs WHERE status NOT IN ('refused', 'expired', 'settled', 'failed', 'refunded', 'cancelled')")
      .all()
    const purchases = one.customer.list({ limit: 100 })
    const tokens = store.sql("SELECT count(*) AS n FROM proofs WHERE state IN ('sent', 'reserved')").get()
    return [
      ...openOperations(store).map(({ id, state }) => `${one.name}: operation ${id} is ${state}`),
      ...jobs.map((row) => `${one.name}: job ${row['id']} is ${row['status']}`),
      ...purchases.flatMap(({ purchase_id, status, paid_msats }) =>
        ['completed', 'refunded'].includes(status) || (paid_msats === 0n && ['failed', 'timeout', 'cancelled'].includes(status))
          ? []
          : [`${one.name}: purchase ${purchase_id} is ${status}, paid ${paid_msats}`],
      ),
      ...(tokens?.['n'] === 0n ? [] : [`${one.name}: ${tokens?.['n']} coins are out in tokens or reserved`]),
    ]
  })
}

async function audit(world: World, customer: SimulatedNode, provider: SimulatedNode): Promise<string[]> {
  const problems: string[] = owed(world)
  for (const { name, node, wallets } of world.nodes) {
    problems.push(...auditLedger(node.store).problems.map((problem) => `${name}: ${problem}`))
    const coins = await world.finish(wallets.auditCoins())
    for (const { spent, problem } of coins) {
      if (spent > 0) problems.push(`${name}: ${spent} coins of the books are spent at the mint`)
      if (problem !== undefined) problems.push(`${name}: ${problem}`)
    }
  }
  const held = world.nodes.reduce(
    (sum, { node }) => sum + sumOf(node.store, "SELECT sum(amount_sats) AS n FROM proofs WHERE state <> 'spent'"),
    0,
  )
  const db = world.mintDatabase
  const at = (text: string) => Number(db.sql(text).pluck().get() ?? 0)
  const outstanding = at('SELECT coalesce(sum(amount), 0) FROM signatures') - at('SELECT coalesce(sum(amount), 0) FROM proofs')
  const unissued = at("SELECT coalesce(sum(amount), 0) FROM mint_quotes WHERE state = 'PAID'")
  const cost = world.nodes.reduce((sum, { node }) => sum + sumOf(node.store, COST) / 1000, 0)
  if (outstanding + unissued + cost !== FUNDING_SATS) {
    problems.push(`the mint owes ${outstanding} and ${unissued} sats, fees cost ${cost}, and it was paid ${FUNDING_SATS}`)
  }
  if (world.isFree && cost !== 0) problems.push(`fees cost ${cost} sats where the mint takes none`)
  if (held !== outstanding) problems.push(`the nodes hold ${held} sats, the mint owes ${outstanding}`)
  problems.push(...deliveries(customer, provider))
  return problems
}

/** Every purchase that cost something was delivered, and every job that was earned is a purchase that was. */
function deliveries(customer: SimulatedNode, provider: SimulatedNode): string[] {
  const bought = customer.customer.list({ limit: 100 })
  const jobs = provider.node.store.sql('SELECT id, status, paid_msats FROM jobs').all()
  return jobs.flatMap((job) => {
    const purchase = bought.find(({ job_id }) => job_id === job['id'])
    if (purchase === undefined) return [`the job ${job['id']} is of nobody`]
    const isEarned = job['status'] === 'settled'
    if (isEarned && purchase.status !== 'completed') return [`the job ${job['id']} was earned, its purchase is ${purchase.status}`]
    if (!isEarned && purchase.status === 'completed') return [`the job ${job['id']} is ${job['status']}, its purchase is completed`]
    return []
  })
}

const sumOf = (store: Store, text: string): number => Number(store.sql(text).get()?.['n'] ?? 0)

function ledgerText(store: Store): string {
  const entries = store.sql('SELECT * FROM ledger_entries ORDER BY rowid').all()
  const postings = store.sql('SELECT * FROM postings ORDER BY entry_id, account').all()
  return stringify([entries, postings])
}
