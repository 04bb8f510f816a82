/** What must hold when the weather has cleared and nothing is under way any more. */
import { listPurchases } from '../../src/store/buying/purchases.ts'
import { auditLedger } from '../../src/store/money/ledger.ts'
import { openOperations } from '../../src/store/money/operations.ts'
import type { Store } from '../../src/store/store.ts'
import { ecashViolations, openEcash } from './ecash-invariants.ts'
import { leaseViolations, openLeases } from './lease-invariants.ts'
import type { SimulatedNode, World } from './world.ts'

const DAY_MS = 86_400_000

/** What is still under way, owed or reserved. */
export function unfinished(world: World): string[] {
  const paid = world.mints.flatMap(({ database }) => database.sql("SELECT id FROM mint_quotes WHERE state = 'PAID'").pluck().all())
  return [
    ...paid.map((id) => `the mint was paid for quote ${id} and has not issued`),
    ...world.nodes.flatMap(openAt),
    ...unheard(world),
    ...openEcash(world),
    ...openLeases(world),
  ]
}

/** What came to the Lightning wallet and its owner's node does not know. */
function unheard({ wallet, nodes: [provider] }: World): string[] {
  if (wallet === undefined || provider === undefined) return []
  const known = provider.node.store.sql("SELECT payment_hash FROM nwc_invoices WHERE state = 'settled'").all()
  const hashes = new Set(known.map((row) => row['payment_hash']))
  return wallet
    .settled('incoming')
    .flatMap((hash) => (hashes.has(hash) ? [] : [`the Lightning wallet was paid for ${hash}, which is not noted`]))
}

function openAt(one: SimulatedNode): string[] {
  const { store } = one.node
  const rows = (what: string, text: string) =>
    store
      .sql(text)
      .all()
      .map((row) => `${one.name}: ${what} ${row['id']} is ${row['state']}`)
  // As stored: the whole view of each would be most of the work of a run's end.
  const purchases = listPurchases(store, { limit: 100 })
  return [
    ...openOperations(store).map(({ id, state }) => `${one.name}: operation ${id} is ${state}`),
    ...rows(
      'job',
      "SELECT id, status AS state FROM jobs WHERE status NOT IN ('refused', 'expired', 'settled', 'failed', 'refunded', 'cancelled')",
    ),
    ...rows('purse move', "SELECT id, state FROM purse_moves WHERE state IN ('receiving', 'planned', 'paid')"),
    ...rows('payment', "SELECT id, state FROM nwc_payments WHERE state = 'unknown'"),
    ...rows('payout', "SELECT id, state FROM payouts WHERE state IN ('begun', 'unknown')"),
    ...rows(
      'request',
      "SELECT event_id AS id, 'not answered' AS state FROM nwc_requests WHERE answer_json IS NULL OR spend_state = 'held'",
    ),
    ...rows('action', "SELECT id, state FROM actions WHERE state IN ('planned', 'claimed', 'unknown')"),
    ...rows('budget of', "SELECT operation_id AS id, state FROM spend_holds WHERE state = 'held'"),
    ...rows('coin', "SELECT y AS id, state FROM proofs WHERE state IN ('sent', 'reserved')"),
    ...rows(
      'account',
      "SELECT account AS id, 'not empty' AS state FROM account_balances WHERE account GLOB '*/held/*' AND amount_msats <> 0",
    ),
    ...purchases.flatMap(({ id, status, paidMsats }) =>
      ['completed', 'refunded'].includes(status) || (paidMsats === 0n && ['failed', 'timeout', 'cancelled'].includes(status))
        ? []
        : [`${one.name}: purchase ${id} is ${status}, paid ${paidMsats}`],
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
    ...ecashViolations(world, isFree),
    ...leaseViolations(world, isFree),
    ...world.nodes.flatMap((one) => [...budgets(one, world.clock.now()), ...connections(world, one)]),
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

/** What each mint has issued and not seen again is what the wallets hold of it; what is gone went into fees. */
function conservation(world: World, funded: number, isFree: boolean): string[] {
  const outstanding = world.mints.map(({ database }) => {
    const at = (text: string) => Number(database.sql(text).pluck().get() ?? 0)
    return at('SELECT coalesce(sum(amount), 0) FROM signatures') - at('SELECT coalesce(sum(amount), 0) FROM proofs')
  })
  const held = world.mints.map(({ url }) =>
    world.nodes.reduce((sum, { node }) => sum + numberOf(node.store, HELD.replace('@', url.replaceAll("'", ''))), 0),
  )
  const sum = outstanding.reduce((total, amount) => total + amount, 0)
  const { outSats, feeSats } = world.wallet?.balance ?? { outSats: 0, feeSats: 0 }
  const paid = funded + outSats
  const cost = world.nodes.reduce((total, { node }) => total + numberOf(node.store, COST) / 1000, funded)
  return [
    ...(sum + cost === paid + feeSats ? [] : [`the mints owe ${sum} sats, fees cost ${cost}, and they were paid ${paid}`]),
    ...(isFree && cost !== feeSats ? [`fees cost ${cost} sats where mints take none`] : []),
    ...(held.join() === outstanding.join() ? [] : [`the nodes hold ${held} sats, the mints owe ${outstanding}`]),
  ]
}

const HELD = "SELECT sum(amount_sats) AS n FROM proofs WHERE state <> 'spent' AND mint_url = '@'"

function paidHashes(world: World): string[] {
  const paid = "SELECT payment_hash FROM melt_quotes WHERE state = 'PAID'"
  const melted = world.mints.flatMap(({ database }) => database.sql(paid).pluck().all() as string[])
  return [...melted, ...(world.wallet?.settled('outgoing') ?? [])]
}

function paidOnce(world: World): string[] {
  const paid = paidHashes(world)
  return paid.filter((hash, i) => paid.indexOf(hash) !== i).map((hash) => `the invoice of ${hash} was paid twice`)
}

/** What was paid by a connection is what it was told, and within its budget. */
function connections(world: World, { name, node: { store } }: SimulatedNode): string[] {
  const paid = new Set(paidHashes(world))
  const asked = store
    .sql(
      `SELECT c.id, c.budget_sats, r.payment_hash, r.refusal, r.spend_sats, r.spend_state FROM nwc_connections c
       JOIN nwc_requests r ON r.connection_id = c.id WHERE r.method = 'pay_invoice'`,
    )
    .all()
  const spent = new Map<unknown, number>()
  const problems = asked.flatMap((request) => {
    const { id, payment_hash, refusal, spend_sats, spend_state } = request
    if (spend_state === 'spent') spent.set(id, (spent.get(id) ?? 0) + Number(spend_sats))
    const isSpent = spend_state === 'spent'
    if ((refusal === null) !== isSpent) return [`${name}: a request of ${id} was ${refusal ?? 'paid'}, its sats are ${spend_state}`]
    return isSpent && !paid.has(String(payment_hash)) ? [`${name}: ${id} was told that ${payment_hash} is paid, and it is not`] : []
  })
  const over = asked.filter(({ id, budget_sats }) => (spent.get(id) ?? 0) > Number(budget_sats))
  const told = new Set(asked.filter(({ refusal }) => refusal === null).map(({ payment_hash }) => payment_hash))
  const untold = asked.filter(({ payment_hash }) => paid.has(String(payment_hash)) && !told.has(payment_hash))
  return [
    ...problems,
    ...over.map(({ id, budget_sats }) => `${name}: ${id} spent ${spent.get(id)} of ${budget_sats} sats`),
    ...untold.map(({ id, payment_hash }) => `${name}: ${payment_hash} was paid, ${id} was told that it was not`),
  ]
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
