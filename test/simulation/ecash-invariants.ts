/** What must hold of ecash that was handed over: nutzaps (NIP-61) and payments on requests (NUT-18). */
import { hash } from 'node:crypto'
import { parseJson } from '../../src/base/json.ts'
import { requestCause } from '../../src/store/keys.ts'
import type { SimulatedNode, World } from './world.ts'

const OPEN = `SELECT 'nutzap ' || id AS what, state FROM nutzaps WHERE state IN ('claimed', 'redeemed')
  UNION ALL SELECT 'nutzap ' || s.idempotency_key, s.state FROM nutzap_sends s JOIN operations o ON o.idempotency_key = s.idempotency_key
    WHERE s.state = 'fixed' AND o.state = 'completed'
  UNION ALL SELECT 'payment ' || id, state FROM request_payments WHERE state = 'claimed'
  UNION ALL SELECT 'payment ' || id, state FROM request_sends WHERE state IN ('claimed', 'sending')`

/** What of it is still under way. */
export function openEcash(world: World): string[] {
  const { nodes, shop, copycat } = world
  return [
    ...nodes.flatMap(({ name, node }) => textsOf(node.store.sql(OPEN).all(), ({ what, state }) => `${name}: ${what} is ${state}`)),
    ...(shop.open === 0 ? [] : [`the shop holds ${shop.open} payments that its node does not have`]),
    ...sentNutzaps(world).flatMap(({ id }) => (copycat.seen.has(id) ? [] : [`no relay has the nutzap ${id}`])),
    ...world.nodes.slice(0, 1).flatMap((payee) => sentRequests(world).flatMap((sent) => unheard(payee, sent))),
  ]
}

export const ecashViolations = (world: World, isFree: boolean): string[] => [
  ...nutzapsOnce(world, isFree),
  ...world.nodes.flatMap((one) => [...zapsBooked(one), ...paymentsBooked(one)]),
  ...requestsOnce(world),
]

const textsOf = (rows: readonly Record<string, unknown>[], text: (row: Record<string, unknown>) => string) => rows.map(text)

interface SentNutzap {
  readonly id: string
  readonly sats: number
  readonly recipient: string
}

const sentNutzaps = ({ nodes }: World): SentNutzap[] =>
  nodes.flatMap(({ node }) =>
    node.store
      .sql("SELECT event_id, amount_sats, recipient FROM nutzap_sends WHERE state = 'sent'")
      .all()
      .map((row) => ({ id: String(row['event_id']), sats: Number(row['amount_sats']), recipient: String(row['recipient']) })),
  )

/** Each coin of a nutzap is with the key that it was for, in one piece of income; whoever else published it has nothing. */
function nutzapsOnce(world: World, isFree: boolean): string[] {
  return sentNutzaps(world).flatMap(({ id, sats, recipient }) => {
    const secrets = world.copycat.seen.get(id)?.secrets ?? []
    const rows = secrets.flatMap((secret) => world.nodes.flatMap((one) => bringersOf(one, secret)))
    const foreign = rows.filter(({ owner }) => owner !== recipient)
    const brought = [...new Map(rows.map((row) => [row.id, row.sats])).values()].reduce((sum, one) => sum + one, 0)
    return [
      ...foreign.map(({ name, owner }) => `${name}: ${owner} took a coin of the nutzap ${id}`),
      ...(rows.length === secrets.length ? [] : [`of the ${secrets.length} coins of the nutzap ${id} ${rows.length} were taken`]),
      ...(brought === sats || !isFree ? [] : [`the nutzap ${id} of ${sats} sats brought ${brought}`]),
    ]
  })
}

function bringersOf({ name, node }: SimulatedNode, secret: string) {
  return node.store
    .sql(
      `SELECT n.id, n.owner_pubkey AS owner, n.amount_sats AS sats FROM nutzap_proofs p JOIN nutzaps n ON n.id = p.nutzap_id
       WHERE p.secret_hash = ? AND n.state IN ('redeemed', 'told')`,
    )
    .all(hash('sha256', secret))
    .map((row) => ({ name, id: String(row['id']), owner: String(row['owner']), sats: Number(row['sats']) }))
}

/** What the ledger has for a cause, in sats. */
function bookedFor({ node }: SimulatedNode, accounts: string, cause: string): number {
  const text = `SELECT coalesce(sum(p.amount_msats), 0) AS n FROM postings p JOIN ledger_entries e ON e.id = p.entry_id
    WHERE p.account GLOB ? AND e.cause_id = ?`
  return -Number(node.store.sql(text).get(accounts, cause)?.['n'] ?? 0) / 1000
}

/** A nutzap that was redeemed is income once, one that was refused never. */
function zapsBooked(one: SimulatedNode): string[] {
  const rows = one.node.store.sql('SELECT id, state, coalesce(amount_sats, 0) AS sats FROM nutzaps').all()
  return rows.flatMap(({ id, state, sats }) => {
    const booked = bookedFor(one, '*/income/*', String(id))
    return booked === Number(sats) ? [] : [`${one.name}: the nutzap ${id} is ${state} with ${sats} sats, its income is ${booked}`]
  })
}

/** What came in on a request is in the books once. */
function paymentsBooked(one: SimulatedNode): string[] {
  const text = `SELECT r.id, r.state, r.amount_sats AS asked, coalesce(sum(p.amount_sats), 0) AS sats, count(p.id) AS n FROM payment_requests r
    LEFT JOIN request_payments p ON p.request_id = r.id AND p.state = 'received' GROUP BY r.id`
  return one.node.store
    .sql(text)
    .all()
    .flatMap(({ id, state, asked, sats, n }) => {
      const booked = bookedFor(one, '*/equity/funding', requestCause.of(String(id)))
      const isPaid = Number(sats) >= Number(asked) && Number(n) > 0
      return [
        ...(booked === Number(sats) ? [] : [`${one.name}: on the request ${id} came ${sats} sats, ${booked} are in the books`]),
        ...(isPaid === (state === 'paid') ? [] : [`${one.name}: the request ${id} is ${state}, of ${asked} sats ${sats} came`]),
      ]
    })
}

interface SentPayment {
  readonly name: string
  readonly id: string
  readonly state: string
  readonly sats: number
  readonly secrets: readonly string[]
}

const sentRequests = ({ nodes }: World): SentPayment[] =>
  nodes.flatMap(({ name, node }) =>
    node.store
      .sql('SELECT id, state, amount_sats, payload FROM request_sends WHERE payload IS NOT NULL')
      .all()
      .map((row) => {
        const { proofs } = parseJson(String(row['payload'])) as { readonly proofs: readonly { readonly secret: string }[] }
        const secrets = proofs.map(({ secret }) => secret)
        return { name, id: String(row['id']), state: String(row['state']), sats: Number(row['amount_sats']), secrets }
      }),
  )

/** Those that came on the request with these coins. */
function paymentOf({ node }: SimulatedNode, { secrets }: SentPayment): { readonly state: string; readonly sats: number } | undefined {
  const id = hash('sha256', [...secrets].sort().join('\n'))
  const row = node.store.sql('SELECT state, coalesce(amount_sats, 0) AS sats FROM request_payments WHERE id = ?').get(id)
  return row === undefined ? undefined : { state: String(row['state']), sats: Number(row['sats']) }
}

const unheard = (payee: SimulatedNode, sent: SentPayment): string[] =>
  sent.state === 'delivered' && paymentOf(payee, sent) === undefined ? [`${payee.name}: the payment ${sent.id} has not come`] : []

/** What was delivered is with who asked for it. */
function requestsOnce(world: World): string[] {
  const [payee] = world.nodes
  if (payee === undefined) return []
  return sentRequests(world).flatMap((sent) => {
    const came = paymentOf(payee, sent)
    if (sent.state !== 'delivered' || (came?.state === 'received' && came.sats >= sent.sats)) return []
    return [
      `${sent.name}: the payment ${sent.id} of ${sent.sats} sats was delivered, it is ${came?.state ?? 'missing'} with ${came?.sats ?? 0}`,
    ]
  })
}
