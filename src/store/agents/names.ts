/** Names of agents: hosted ones and those in a runtime are called by them alike, so each is had once. */
import { PylonError } from '../../base/errors.ts'
import type { Sql } from '../commands.ts'
import { isThere } from '../row.ts'

const TAKEN = `SELECT 1 FROM agents WHERE name = ? AND deleted_at IS NULL AND pubkey <> ?
  UNION ALL SELECT 1 FROM managed_agents WHERE name = ? AND phase NOT IN ('failed', 'ended')`

/** @param pubkey of the hosted agent that may have it already @throws agent_exists */
export function assertNameFree(sql: Sql, name: string, pubkey = ''): void {
  if (!isThere(sql, TAKEN, name, pubkey, name)) return
  const next = `choose another --name, or talk to it: pylon agent attach ${name}`
  throw new PylonError('agent_exists', `There is an agent named ${name} already; ${next}`)
}
