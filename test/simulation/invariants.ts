/** What must hold when the weather has cleared and nothing is under way any more. */
import { auditLedger } from '../../src/store/money/ledger.ts'
import { openOperations } from '../../src/store/money/operations.ts'
import type { Store } from '../../src/store/store.ts'
import type { SimulatedNode, World } from './world.ts'

const DAY_MS = 86_400_000

/** What is still under way, owed or reserved. */
export function unfinished(world: World): string[] {
  const paid = world.mintDatabase.sql("SELECT id FROM mint_quotes WHERE state = 'PAID'").pluck().all()
  return [...paid.map((id) => `the mint was paid for quote ${id} and has not issued`), ...world.nodes.flatMap(openAt)]
}

function openAt(one: SimulatedNode): string[] {
  const { store } = one.node
  const rows = (what: string, text: string) =>
    store
      .sql(text)
      .all()
      .map((row) => `${one.name}: ${what} ${row['id']} is ${row['state']}`)
  const purchases = one.customer.list({ limit: 100 })
  return [
    ...openOperations(store).map(({ id, state }) => `${one.name}: operation ${id} is ${state}`),
    ...rows(
      'job',
      "SELECT id, status AS state FROM jobs WHERE status NOT IN ('refused', 'expired', 'settled', 'failed', 'refunded', 'cancelled')",
    ),
    ...rows('action', "SELECT id, state FROM actions WHERE state IN ('planned', 'claimed', 'unknown')"),
    ...rows('budget of', "SELECT operation_id AS id, state FROM spend_holds WHERE state = 'held'"),
    ...rows('coin', "SELECT y AS id, state FROM proofs WHERE state IN ('sent', 'reserved')"),
    ...rows(
      'account',
      "SELECT account AS id, 'not empty' AS state FROM account_balances WHERE account GLOB '*/held/*' AND amount_msats <> 0",
    ),
    ...purchases.flatMap(({ purchase_id, status, paid_msats }) =>
      ['completed', 'refunded'].includes(status) || (paid_msats === 0n && ['failed', 'timeout', 'cancelled'].includes(status))
        ? []
        : [`${one.name}: purchase ${purchase_id} is ${status}, paid ${paid_msats}`],
    ),
  ]
}

/** @param funded sats that came from outside */
export async function violations(world: World, { funded, isFree }: { funded: number; isFree: boolean }): Promise<string[]> {
  return [
    ...unfinished(world),
    ...(await booksAndMint(world)),
    ...conservation(world, funded, isFree),
    ...paidOnce(world),
    ...deliveries(world),
    ...world.nodes.flatMap((one) => budgets(one, world.clock.now())),
  ]
}

async function booksAndMint(world: World): Promise<string[]> {
  const problems: string[] = []
  for (const { name, node, wallets } of world.nodes) {
    problems.push(...auditLedger(node.store).problems.map((problem) => `${name}: ${problem}`))
    for (const { spent, problem } of await world.finish(wallets.auditCoins())) {
      if (spent > 0) problems.push(`${name}: ${spent} coins of the books are spent at the mint`)
      if (problem !== undefined) problems.push(`${name}: ${problem}`)
    }
  }
  return problems
}

/** What nobody got: what all spent and put in or took out, less what all earned. */
const COST = `SELECT coalesce(sum(amount_msats), 0) AS n FROM account_balances
  WHERE account GLOB '*/expense/*' OR account GLOB '*/income/*' OR account GLOB '*/equity/*'`

/** What the mint has issued and not seen again is what the wallets hold; what is gone went into fees. */
function conservation(world: World, funded: number, isFree: boolean): string[] {
  const held = world.nodes.reduce(
    (sum, { node }) => sum + numberOf(node.store, "SELECT sum(amount_sats) AS n FROM proofs WHERE state <> 'spent'"),
    0,
  )
  const at = (text: string) => Number(world.mintDatabase.sql(text).pluck().get() ?? 0)
  const outstanding = at('SELECT coalesce(sum(amount), 0) FROM signatures') - at('SELECT coalesce(sum(amount), 0) FROM proofs')
  const cost = world.nodes.reduce((sum, { node }) => sum + numberOf(node.store, COST) / 1000, funded)
  return [
    ...(outstanding + cost === funded ? [] : [`the mint owes ${outstanding} sats, fees cost ${cost}, and it was paid ${funded}`]),
    ...(isFree && cost !== 0 ? [`fees cost ${cost} sats where the mint takes none`] : []),
    ...(held === outstanding ? [] : [`the nodes hold ${held} sats, the mint owes ${outstanding}`]),
  ]
}

function paidOnce(world: World): string[] {
  const twice = "SELECT payment_hash FROM melt_quotes WHERE state = 'PAID' GROUP BY payment_hash HAVING count(*) > 1"
  return world.mintDatabase
    .sql(twice)
    .pluck()
    .all()
    .map((hash) => `the invoice of ${hash} was paid twice`)
}

/** Every purchase that cost something was delivered, and every job that was earned is a purchase that was. */
function deliveries({ nodes: [provider, customer] }: World): string[] {
  if (provider === undefined || customer === undefined) return []
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

/** No agent spent more in a day than it may. */
function budgets({ name, node: { store } }: SimulatedNode, nowMs: number): string[] {
  const agents = store.sql('SELECT pubkey, name, budget_json FROM agents').all()
  return agents.flatMap((agent) => {
    const { per_day_sats } = JSON.parse(String(agent['budget_json'])) as { per_day_sats: number }
    const spent = numberOf(
      store,
      `SELECT sum(p.amount_msats) AS n FROM postings p JOIN ledger_entries e ON e.id = p.entry_id
       WHERE p.account GLOB 'agent:${agent['pubkey']}/expense/*' AND e.created_at > ${nowMs - DAY_MS}`,
    )
    return spent > per_day_sats * 1000 ? [`${name}: ${agent['name']} spent ${spent} msats of ${per_day_sats} sats a day`] : []
  })
}

const numberOf = (store: Store, text: string): number => Number(store.sql(text).get()?.['n'] ?? 0)
