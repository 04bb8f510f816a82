/** What must hold of machines that were rented: served or refunded once, never unpaid. */
import type { SimulatedNode, World } from './world.ts'

/** What of it is still under way. @param tenant who rents, from `landlord` */
export function openLeases({ nodes: [landlord, tenant], substrate }: World): string[] {
  if (substrate === undefined || landlord === undefined || tenant === undefined) return []
  const of = (one: SimulatedNode, text: string) =>
    one.node.store
      .sql(text)
      .all()
      .map(({ what, state }) => `${one.name}: ${what} is ${state}`)
  return [
    ...of(landlord, OPEN_SOLD),
    ...of(tenant, OPEN_RENTED),
    ...[...substrate.instances.keys()].map((id) => `the machine ${id} runs on`),
    ...unredeemed(landlord, tenant),
  ]
}

const OPEN_SOLD = `SELECT 'lease ' || id AS what, state FROM leases WHERE state IN ('quoted', 'paid', 'active', 'refunding')
  UNION ALL SELECT 'runtime ' || id, state FROM runtimes WHERE state <> 'gone'
  UNION ALL SELECT 'command ' || idempotency_key, state FROM control_requests WHERE state = 'running'`

/** A rental is paid when its wallet says so, also where the tenant has not looked since. */
const OPEN_RENTED = `SELECT 'rental ' || id AS what, state FROM rentals WHERE state IN ('asked', 'paying', 'paid')
  UNION ALL SELECT 'the payment of rental ' || r.id, 'not noted' FROM rentals r JOIN operations o ON o.idempotency_key = r.payment_key
    WHERE r.paid_msats = 0 AND o.state = 'completed'
  UNION ALL SELECT 'a refund of ' || cause_id, state FROM refund_tokens WHERE state = 'waiting' AND cause_id GLOB 'rental:*'`

/** By runtime, what the tenant paid and had back, and what the landlord has kept of it, in msats. */
interface Rented {
  readonly runtimeId: string
  readonly paid: number
  readonly refunded: number
  readonly kept: number
  readonly leases: readonly {
    readonly id: string
    readonly state: string
    readonly price: number
    readonly paid: number
    isServed: boolean
  }[]
}

function rented(landlord: SimulatedNode, tenant: SimulatedNode): Rented[] {
  const rows = landlord.node.store
    .sql('SELECT id, runtime_id, state, price_msats, paid_msats, starts_at FROM leases ORDER BY created_at')
    .all()
    .map((row) => ({
      ...{ runtimeId: String(row['runtime_id']), id: String(row['id']), state: String(row['state']) },
      ...{ price: Number(row['price_msats']), paid: Number(row['paid_msats']), isServed: row['starts_at'] !== null },
    }))
  const payments = tenant.node.store.sql('SELECT runtime_id, paid_msats, refunded_msats FROM rentals WHERE paid_msats > 0').all()
  const ids = new Set([...rows.map(({ runtimeId }) => runtimeId), ...payments.map((row) => String(row['runtime_id']))])
  return [...ids].map((runtimeId) => {
    const own = payments.filter((row) => row['runtime_id'] === runtimeId)
    const sum = (column: string) => own.reduce((total, row) => total + Number(row[column]), 0)
    const leases = rows.filter((row) => row.runtimeId === runtimeId)
    const kept = leases.reduce((total, { id }) => total + incomeOf(landlord, id), 0)
    return { runtimeId, leases, kept, paid: sum('paid_msats'), refunded: sum('refunded_msats') }
  })
}

const incomeOf = ({ node }: SimulatedNode, leaseId: string): number =>
  -Number(
    node.store
      .sql(
        `SELECT coalesce(sum(p.amount_msats), 0) AS n FROM postings p JOIN ledger_entries e ON e.id = p.entry_id
         WHERE p.account GLOB '*/income/*' AND e.cause_type = 'lease' AND e.cause_id = ?`,
      )
      .get(leaseId)?.['n'] ?? 0,
  )

/** Fees of mints for one refund, and what of a sat cannot be given back. */
const REFUND_FEE_MSATS = 4000
const SAT_MSATS = 1000

const unredeemed = (landlord: SimulatedNode, tenant: SimulatedNode): string[] =>
  rented(landlord, tenant).flatMap(({ runtimeId, paid, refunded, kept, leases }) =>
    paid - refunded - kept <= leases.length * (SAT_MSATS + REFUND_FEE_MSATS)
      ? []
      : [`${tenant.name}: of ${paid} msats for ${runtimeId} ${refunded} came back, and ${kept} were earned`],
  )

export function leaseViolations({ nodes: [landlord, tenant], substrate }: World, isFree: boolean): string[] {
  if (substrate === undefined || landlord === undefined || tenant === undefined) return []
  const all = rented(landlord, tenant)
  const paidFor = new Set(all.flatMap(({ runtimeId, leases }) => (leases.some(({ paid, price }) => paid >= price) ? [runtimeId] : [])))
  return [
    ...[...substrate.made].flatMap((id) => (paidFor.has(id) ? [] : [`the machine ${id} was made for nothing`])),
    ...all.flatMap(({ runtimeId, paid, refunded, kept, leases }) => {
      const unpaid = leases.filter((lease) => lease.isServed && lease.paid < lease.price)
      const lost = paid - refunded - kept
      const spare = leases.length * (SAT_MSATS + (isFree ? 0 : REFUND_FEE_MSATS))
      const served = leases.some(({ isServed }) => isServed)
      return [
        ...unpaid.map(({ id, price, paid: got }) => `the lease ${id} was served for ${got} of ${price} msats`),
        ...(lost <= spare && lost >= -spare
          ? []
          : [`for ${runtimeId} ${paid} msats were paid, ${refunded} came back, ${kept} were earned`]),
        ...(served || kept === 0 ? [] : [`${runtimeId} was never there, and earned ${kept} msats`]),
      ]
    }),
  ]
}
