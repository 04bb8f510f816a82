/** NIP-46, as the bunker: who elsewhere may sign with a key of this home, and each request of theirs, once. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand, defineSweep } from '../commands.ts'
import { appendAudit } from '../money/audit.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, table } from '../table.ts'

const GRANT = {
  id: column.text(),
  name: column.text(),
  /** Whose key signs. */
  userPubkey: column.text(),
  /** The key that speaks for it. */
  signerPubkey: column.text(),
  /** Which side made the string. */
  origin: column.text<'bunker' | 'client'>(),
  methods: column.json<readonly string[]>('methods_json'),
  /** Null: all but those that are granted by name only. */
  kinds: column.orNull(column.json<readonly number[]>('kinds_json')),
  relays: column.json<readonly string[]>('relays_json'),
  clientPubkey: column.orNull(column.text()),
  clientName: column.orNull(column.text()),
  createdAt: column.int(),
  connectedAt: column.orNull(column.int()),
  lastUsedAt: column.orNull(column.int()),
  expiresAt: column.orNull(column.int()),
  revokedAt: column.orNull(column.int()),
}
export type BunkerGrant = RowOf<typeof GRANT>

const grants = table('bunker_grants', GRANT)

/** False when the id is there already. */
export const insertBunkerGrant = defineCommand(
  'insert_bunker_grant',
  (sql, grant: Omit<BunkerGrant, 'lastUsedAt' | 'revokedAt'>): boolean => {
    const isNew = grants.insert(sql, grant, 'ON CONFLICT (id) DO NOTHING')
    if (isNew) appendAudit(sql, { at: grant.createdAt, kind: 'connection_changed', data: { id: grant.id, to: 'bunker created' } })
    return isNew
  },
)

/** @throws not_found */
export const revokeBunkerGrant = defineCommand('revoke_bunker_grant', (sql, p: { id: string; at: number }) => {
  if (grants.get(sql, { id: p.id }) === undefined) throw new PylonError('not_found', `There is no connection ${p.id}.`)
  if (!grants.patch(sql, { id: p.id, revokedAt: null }, { revokedAt: p.at })) return
  appendAudit(sql, { at: p.at, kind: 'connection_changed', data: { id: p.id, to: 'bunker revoked' } })
})

/**
 * The one use of a secret: the first client that proves it has the connection.
 * @throws conflict when another was first, or it was revoked meanwhile
 */
export const bindBunkerClient = defineCommand(
  'bind_bunker_client',
  (sql, p: { id: string; clientPubkey: string; clientName: string | null; at: number }) => {
    const change = { clientPubkey: p.clientPubkey, clientName: p.clientName, connectedAt: p.at }
    if (!grants.patch(sql, { id: p.id, clientPubkey: null, revokedAt: null }, change))
      throw new PylonError('conflict', `The connection ${p.id} has a client already.`)
    appendAudit(sql, { at: p.at, kind: 'connection_changed', data: { id: p.id, to: 'bunker connected', client: p.clientPubkey } })
  },
)

/** Secrets in a restored database may have been used since: nobody connects by them any more. */
export const endUnusedBunkerGrants = defineCommand('end_unused_bunker_grants', (sql, p: { at: number }) => {
  sql('UPDATE bunker_grants SET revoked_at = ? WHERE client_pubkey IS NULL AND revoked_at IS NULL').run(BigInt(p.at))
})

export const getBunkerGrant = (store: Store, id: string): BunkerGrant | undefined => grants.get(store.sql, { id })

/** The newest first. */
export const listBunkerGrants = (store: Store): BunkerGrant[] => grants.all(store.sql, 'ORDER BY created_at DESC, id')

/** Those that were not revoked before a time (ms). */
export const heardBunkerGrants = (store: Store, revokedSince: number): BunkerGrant[] =>
  grants.all(store.sql, 'WHERE revoked_at IS NULL OR revoked_at >= ? ORDER BY created_at, id', BigInt(revokedSince))

const REQUEST = {
  eventId: column.text(),
  grantId: column.text(),
  method: column.text(),
  kind: column.orNull(column.int()),
  refusal: column.orNull(column.text()),
  createdAt: column.int(),
}
export type BunkerRequestRow = RowOf<typeof REQUEST>

const requests = table('bunker_requests', REQUEST)

/**
 * Claims a request, in the commit of all that it brings about.
 * @throws conflict when it was claimed before, or the connection was revoked and yet it is no refusal
 */
export const claimBunkerRequest = defineCommand('claim_bunker_request', (sql, p: BunkerRequestRow) => {
  if (!requests.insert(sql, p, 'ON CONFLICT (event_id) DO NOTHING'))
    throw new PylonError('conflict', `The request ${p.eventId} was claimed before.`)
  if (!grants.patch(sql, p.refusal === null ? { id: p.grantId, revokedAt: null } : { id: p.grantId }, { lastUsedAt: p.createdAt }))
    throw new PylonError('conflict', `The connection ${p.grantId} was revoked.`)
})

export const isBunkerRequestClaimed = (store: Store, eventId: string): boolean => requests.get(store.sql, { eventId }) !== undefined

/** The newest of one connection, newest first. */
export const recentBunkerRequests = (store: Store, grantId: string, limit: number): BunkerRequestRow[] =>
  requests.all(store.sql, 'WHERE grant_id = ? ORDER BY created_at DESC, rowid DESC LIMIT ?', grantId, BigInt(limit))

export const sweepBunkerRequests = defineSweep('sweep_bunker_requests', 'bunker_requests', 'event_id', 'created_at')
