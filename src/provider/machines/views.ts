/** Answers that only look: runtimes, lists and requests as their owner sees them. */
import { asJson, asRecord, type Json } from '../../base/json.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { ControlResult, ControlStatus } from '../../nostr/control/envelopes.ts'
import { type ControlRequestRow, getRequest } from '../../store/selling/control-requests.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { getRuntime, type RuntimeRow, runtimesOf } from '../../store/selling/runtimes.ts'
import { describe } from './descriptor.ts'
import { fail, runtimeNotFound } from './failures.ts'
import type { KeeperDeps } from './keeper.ts'
import { backupOf } from './operations.ts'
import { phaseOf } from './states.ts'

/** JSON of a list at most; what does not fit is left out, `limit` and filters narrow it. */
const MAX_LIST_BYTES = 40 * 1024

export type Views = ReturnType<typeof createViews>

export function createViews(keeper: KeeperDeps) {
  const { store, leases } = keeper

  /** The same for what is not there and what is another's. @throws ControlError runtime_not_found */
  function own(requester: string, runtimeId: string): RuntimeRow {
    const row = getRuntime(store, runtimeId)
    if (row === undefined || row.ownerPubkey !== requester) throw runtimeNotFound(runtimeId)
    return row
  }

  async function view(row: RuntimeRow, withBackup = false): Promise<ControlResult['runtime']> {
    const of = leasesOf(store, row.id)
    const refundToken = of.map((lease) => leases.refundToken(lease)).find((token) => token !== undefined)
    const backup = withBackup ? await backupOf(keeper, row) : undefined
    return describe(row, { leases: of, ...(backup === undefined ? {} : { backup }), ...(refundToken === undefined ? {} : { refundToken }) })
  }

  const viewNow = (row: RuntimeRow): ControlResult['runtime'] =>
    describe(getRuntime(store, row.id) ?? row, { leases: leasesOf(store, row.id) })

  async function list(requester: string, command: CommandOf<'list_runtimes'>): Promise<ControlResult> {
    const rows = runtimesOf(store, requester).filter(
      (row) =>
        (command.provider === undefined || row.provider === command.provider) &&
        (command.protocol === undefined || row.protocols.includes(command.protocol)) &&
        (command.lifecycle_phase === undefined || phaseOf(row.state) === command.lifecycle_phase) &&
        (command.runtime_class === undefined || row.runtimeClass === command.runtime_class),
    )
    const runtimes: Json[] = []
    let bytes = 0
    for (const row of rows.slice(0, command.limit ?? rows.length)) {
      const entry = asJson(await view(row))
      bytes += Buffer.byteLength(JSON.stringify(entry))
      if (bytes > MAX_LIST_BYTES) break
      runtimes.push(entry)
    }
    const [first] = rows
    const payload = { operation: 'list_runtimes', count: runtimes.length, total: rows.length, runtimes }
    return { runtime: first === undefined || runtimes.length === 0 ? summary('runtime-list-summary') : viewNow(first), payload }
  }

  function requestView(requester: string, command: CommandOf<'get_request'>): ControlResult {
    const row = getRequest(store, requester, command.key)
    if (row === undefined) throw fail('request_not_found', 'no command with this key is kept', 'send the command again')
    const runtime = row.runtimeId === null ? undefined : getRuntime(store, row.runtimeId)
    const payload: Record<string, Json> = {
      operation: 'get_request',
      key: row.idempotencyKey,
      command: row.command,
      state: row.state,
      request_id: row.requestId,
      statuses: [...row.statuses].slice(-16),
    }
    if (row.state === 'failed') payload['error'] = row.terminal
    if (row.state === 'succeeded') payload['result'] = asRecord(row.terminal)['payload'] ?? null
    return { runtime: runtime === undefined ? summary('request-summary') : viewNow(runtime), payload }
  }

  /** An answer needs a runtime, also where it is about none. */
  const summary = (id: string): ControlResult['runtime'] => ({
    ...{ runtime_id: id, provider: 'fly', lifecycle_phase: 'ready', protocol_compatibility: [], metadata: { summary: true } },
  })

  /** What ran before, as things are now. */
  function replay(row: ControlRequestRow): { statuses: readonly ControlStatus[]; result: ControlResult } {
    const kept = asRecord(row.terminal) as { runtime?: ControlResult['runtime']; payload?: Json }
    const runtime = row.runtimeId === null ? undefined : getRuntime(store, row.runtimeId)
    const fresh = runtime === undefined ? kept.runtime : viewNow(runtime)
    if (fresh === undefined) throw fail('internal', 'the kept answer has no runtime')
    const about = { runtime_id: fresh.runtime_id, provider: fresh.provider }
    return {
      statuses: [
        { phase: 'queued', message: 'request queued' },
        { phase: 'ready', ...about, message: 'idempotent replay' },
      ],
      result: { runtime: fresh, ...(kept.payload === undefined ? {} : { payload: kept.payload }) },
    }
  }

  return { own, view, viewNow, summary, list, requestView, replay }
}
