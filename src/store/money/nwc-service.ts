/** NIP-47, as the wallet: connections that others use, their requests, each once, and what these spend. */
import { type Sats, sats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Sql } from '../commands.ts'
import type { StoredEvent } from '../nostr/outbox.ts'
import { int, sumOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, Table, table } from '../table.ts'
import { appendAudit } from './audit.ts'
import { walletOwner } from './fields.ts'

/** `total`: for as long as the connection is there. */
export type BudgetPeriod = 'hour' | 'day' | 'week' | 'month' | 'total'

const CONNECTION = {
  id: column.text(),
  name: column.text(),
  owner: walletOwner,
  servicePubkey: column.text(),
  clientPubkey: column.text(),
  relays: column.json<readonly string[]>('relays_json'),
  methods: column.json<readonly string[]>('methods_json'),
  budget: column.orNull(column.group({ sats: column.amount<Sats>('budget_sats'), per: column.text<BudgetPeriod>('budget_per') })),
  forgottenSats: column.amount<Sats>(),
  expiresAt: column.orNull(column.int()),
  createdAt: column.int(),
  lastUsedAt: column.orNull(column.int()),
  revokedAt: column.orNull(column.int()),
}
export type NwcConnection = RowOf<typeof CONNECTION>

const connections = table('nwc_connections', CONNECTION)

/** False when the id is there already. */
export const insertNwcConnection = defineCommand(
  'insert_nwc_connection',
  (sql, connection: Omit<NwcConnection, 'forgottenSats' | 'lastUsedAt' | 'revokedAt'>): boolean => {
    const isNew = connections.insert(sql, connection, 'ON CONFLICT (id) DO NOTHING')
    if (isNew) appendAudit(sql, { at: connection.createdAt, kind: 'connection_changed', data: { id: connection.id, to: 'created' } })
    return isNew
  },
)

/** @throws not_found */
export const revokeNwcConnection = defineCommand('revoke_nwc_connection', (sql, p: { id: string; at: number }) => {
  if (connections.get(sql, { id: p.id }) === undefined) throw new PylonError('not_found', `There is no connection ${p.id}.`)
  if (!connections.patch(sql, { id: p.id, revokedAt: null }, { revokedAt: p.at })) return
  appendAudit(sql, { at: p.at, kind: 'connection_changed', data: { id: p.id, to: 'revoked' } })
})

export const getNwcConnection = (store: Store, id: string): NwcConnection | undefined => connections.get(store.sql, { id })

/** The newest first; those revoked before `revokedSince` are left out. */
export const listNwcConnections = (store: Store, revokedSince = 0): NwcConnection[] =>
  connections.all(store.sql, 'WHERE revoked_at IS NULL OR revoked_at >= ? ORDER BY created_at DESC, id', BigInt(revokedSince))

/** Those of one wallet that may be used. */
export const nwcConnectionsOf = (store: Store, ownerPubkey: string): NwcConnection[] =>
  connections.all(store.sql, 'WHERE owner_pubkey = ? AND revoked_at IS NULL ORDER BY created_at, id', ownerPubkey)

const REQUEST = {
  eventId: column.text(),
  connectionId: column.text(),
  clientPubkey: column.text(),
  method: column.text(),
  encryption: column.text<'nip44_v2' | 'nip04'>(),
  params: column.json<Readonly<Record<string, unknown>>>('params_json'),
  answer: column.orNull(column.json<StoredAnswer>('answer_json')),
  refusal: column.orNull(column.text()),
  sends: column.int(),
  sentAt: column.orNull(column.int()),
  paymentHash: column.orNull(column.text()),
  spend: column.orNull(column.group({ sats: column.amount<Sats>('spend_sats'), state: column.text<SpendState>('spend_state') })),
  createdAt: column.int(),
}
type SpendState = 'held' | 'spent' | 'released'

/** The signed event, as it is sent. */
type StoredAnswer = Required<StoredEvent>

type Columns = RowOf<typeof REQUEST>
/** One that was answered says so by the answer. */
export type NwcRequestRow = Columns

const requests = new Table('nwc_requests', REQUEST, (row): row is NwcRequestRow => (row.answer === null) === (row.sentAt === null))

export type NewNwcRequest = Pick<Columns, 'eventId' | 'connectionId' | 'clientPubkey' | 'method' | 'encryption' | 'params' | 'createdAt'>

/** Claims a request that is to be done. False when it was claimed before: then nothing is to be done. */
export const claimNwcRequest = defineCommand('claim_nwc_request', (sql, p: NewNwcRequest): boolean => insertRequest(sql, p))

/**
 * Claims a request together with its refusal: what is claimed and not answered is gone on with, so what must not be done is never that.
 * @throws conflict when it was claimed before
 */
export const refuseNwcRequest = defineCommand(
  'refuse_nwc_request',
  (sql, p: NewNwcRequest & { readonly answer: StoredAnswer; readonly refusal: string }) => {
    const isNew = insertRequest(sql, { ...p, sends: 1, sentAt: p.createdAt })
    if (!isNew) throw new PylonError('conflict', `The request ${p.eventId} was claimed before.`)
  },
)

function insertRequest(sql: Sql, p: NewNwcRequest & Partial<Pick<Columns, 'answer' | 'refusal' | 'sends' | 'sentAt'>>): boolean {
  if (!requests.insert(sql, p, 'ON CONFLICT (event_id) DO NOTHING')) return false
  sql('UPDATE nwc_connections SET last_used_at = ? WHERE id = ? AND client_pubkey = ?').run(
    BigInt(p.createdAt),
    p.connectionId,
    p.clientPubkey,
  )
  return true
}

export interface NwcHold {
  readonly eventId: string
  readonly paymentHash: string
  readonly amountSats: bigint
  /** What fees may come to, where the budget has room for that. */
  readonly feesSats: bigint
  /** Since when spends count (ms). */
  readonly since: number
}

/**
 * Holds what a payment may cost of its connection's budget; the same request again changes nothing.
 * @returns sats that its fees may come to @throws budget_exceeded, forbidden where the connection was revoked meanwhile
 */
export const holdNwcSpend = defineCommand('hold_nwc_spend', (sql, p: NwcHold): bigint => {
  const request = requests.get(sql, { eventId: p.eventId })
  const connection = request === undefined ? undefined : connections.get(sql, { id: request.connectionId })
  if (request === undefined || connection === undefined) throw new PylonError('internal', `The request ${p.eventId} was not claimed.`)
  if (request.spend !== null) return request.spend.sats - p.amountSats
  if (connection.revokedAt !== null) throw new PylonError('nwc_revoked', 'The connection was revoked.')
  const used = usedSats(sql, connection, p.since)
  const left = connection.budget === null ? undefined : connection.budget.sats - used
  if (left !== undefined && p.amountSats > left) {
    throw new PylonError(
      'budget_exceeded',
      `The budget of this connection has ${left > 0n ? left : 0n} of ${connection.budget?.sats} sats left, the payment needs ${p.amountSats}.`,
      { details: { limit: `per ${connection.budget?.per}` } },
    )
  }
  const held = left !== undefined && p.amountSats + p.feesSats > left ? left : p.amountSats + p.feesSats
  requests.patch(sql, { eventId: p.eventId }, { paymentHash: p.paymentHash, spend: { sats: sats(held), state: 'held' } })
  return held - p.amountSats
})

/**
 * Stores the answer, and what its payment has cost in the end; without a cost what was held is free again.
 * @throws conflict when it was answered before
 */
export const answerNwcRequest = defineCommand(
  'answer_nwc_request',
  (sql, p: { eventId: string; answer: StoredAnswer; refusal: string | null; spentSats?: bigint; at: number }) => {
    const request = requests.get(sql, { eventId: p.eventId })
    if (request === undefined || request.answer !== null) throw new PylonError('conflict', `The request ${p.eventId} was answered before.`)
    const spend = { sats: sats(p.spentSats ?? 0n), state: p.spentSats === undefined ? ('released' as const) : ('spent' as const) }
    const change = { answer: p.answer, refusal: p.refusal, sends: 1, sentAt: p.at, ...(request.spend === null ? {} : { spend }) }
    requests.patch(sql, { eventId: p.eventId }, change)
  },
)

/** Counts another sending of an answer. @returns which it is; undefined where that is too soon or too often */
export const resendNwcAnswer = defineCommand(
  'resend_nwc_answer',
  (sql, p: { eventId: string; sentBefore: number; most: number; at: number }): number | undefined => {
    const row = sql(
      `UPDATE nwc_requests SET sends = sends + 1, sent_at = ? WHERE event_id = ? AND answer_json IS NOT NULL AND sent_at < ? AND sends < ?
       RETURNING sends`,
    ).get(BigInt(p.at), p.eventId, BigInt(p.sentBefore), BigInt(p.most))
    return row === undefined ? undefined : int(row, 'sends')
  },
)

export const getNwcRequest = (store: Store, eventId: string): NwcRequestRow | undefined => requests.get(store.sql, { eventId })

/** Claimed and not answered yet, the oldest first. */
export const openNwcRequests = (store: Store): NwcRequestRow[] =>
  requests.all(store.sql, 'WHERE answer_json IS NULL ORDER BY created_at LIMIT 10000')

/** The newest of one connection, newest first. */
export const recentNwcRequests = (store: Store, connectionId: string, limit: number): NwcRequestRow[] =>
  requests.all(store.sql, 'WHERE connection_id = ? ORDER BY created_at DESC, rowid DESC LIMIT ?', connectionId, BigInt(limit))

/** What a connection holds and has spent since a time (ms): in its whole life where that is 0. */
export const nwcSpentSats = (store: Store, connection: NwcConnection, since: number): Sats => usedSats(store.sql, connection, since)

function usedSats(sql: Sql, { id, forgottenSats }: Pick<NwcConnection, 'id' | 'forgottenSats'>, since: number): Sats {
  const kept = sumOf(
    sql,
    `SELECT coalesce(sum(spend_sats), 0) FROM nwc_requests WHERE connection_id = ? AND spend_state IN ('held', 'spent') AND created_at >= ?`,
    id,
    BigInt(since),
  )
  return sats(since === 0 ? kept + forgottenSats : kept)
}

/** Forgets requests that were answered before a time (ms), at most `limit`; what they spent stays counted. @returns how many went */
export const sweepNwcRequests = defineCommand('sweep_nwc_requests', (sql, p: { before: number; limit: number }): number => {
  const gone = requests.all(
    sql,
    'WHERE answer_json IS NOT NULL AND created_at < ? ORDER BY created_at LIMIT ?',
    BigInt(p.before),
    BigInt(p.limit),
  )
  for (const { eventId, connectionId, spend } of gone) {
    if (spend?.state === 'spent') {
      sql('UPDATE nwc_connections SET forgotten_sats = forgotten_sats + ? WHERE id = ?').run(spend.sats, connectionId)
    }
    sql('DELETE FROM nwc_requests WHERE event_id = ?').run(eventId)
  }
  return gone.length
})
