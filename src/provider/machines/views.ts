/** Answers that only look: runtimes, lists and requests as their owner sees them. */
import { asJson, asRecord, type Json } from '../../base/json.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { ControlResult, ControlStatus } from '../../nostr/control/envelopes.ts'
import { type ControlRequestRow, getRequest } from '../../store/selling/control-requests.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { getRuntime, type RuntimeRow, runtimesOf } from '../../store/selling/runtimes.ts'
import type { ManagedRuntimeBackupStatus } from './backups.ts'
import type { MachineDeps } from './deps.ts'
import { describe } from './descriptor.ts'
import { fail, runtimeNotFound } from './failures.ts'
import { backupOf, openInstance } from './instance-commands.ts'
import { isServing, phaseOf } from './runtime-life.ts'

/** JSON of a list at most; what does not fit is left out, `limit` and filters narrow it. */
const MAX_LIST_BYTES = 40 * 1024

export type ViewsDeps = Pick<MachineDeps, 'store' | 'clock' | 'config' | 'substrates' | 'leases'>

export class Views {
  readonly #deps: ViewsDeps

  constructor(deps: ViewsDeps) {
    this.#deps = deps
  }

  /** The same for what is not there and what is another's. @throws ControlError runtime_not_found */
  own(requester: string, runtimeId: string): RuntimeRow {
    const row = getRuntime(this.#deps.store, runtimeId)
    if (row === undefined || row.ownerPubkey !== requester) throw runtimeNotFound(runtimeId)
    return row
  }

  async view(row: RuntimeRow, withBackup = false): Promise<ControlResult['runtime']> {
    const of = leasesOf(this.#deps.store, row.id)
    const refundToken = of.map((lease) => this.#deps.leases.refundToken(lease)).find((token) => token !== undefined)
    const backup = withBackup ? await this.#backup(row) : undefined
    return describe(row, { leases: of, ...(backup === undefined ? {} : { backup }), ...(refundToken === undefined ? {} : { refundToken }) })
  }

  async #backup(row: RuntimeRow): Promise<ManagedRuntimeBackupStatus | undefined> {
    const { substrates, clock, config } = this.#deps
    if (row.handle === null || !isServing(row)) return undefined
    return await backupOf(openInstance(substrates, row), clock.now(), config().snapshot_stale_s * 1000)
  }

  viewNow(row: RuntimeRow): ControlResult['runtime'] {
    return describe(getRuntime(this.#deps.store, row.id) ?? row, { leases: leasesOf(this.#deps.store, row.id) })
  }

  async list(requester: string, command: CommandOf<'list_runtimes'>): Promise<ControlResult> {
    const rows = runtimesOf(this.#deps.store, requester).filter(
      (row) =>
        (command.provider === undefined || row.provider === command.provider) &&
        (command.protocol === undefined || row.protocols.includes(command.protocol)) &&
        (command.lifecycle_phase === undefined || phaseOf(row.state) === command.lifecycle_phase) &&
        (command.runtime_class === undefined || row.runtimeClass === command.runtime_class),
    )
    const runtimes: Json[] = []
    let bytes = 0
    for (const row of rows.slice(0, command.limit ?? rows.length)) {
      const entry = asJson(await this.view(row))
      bytes += Buffer.byteLength(JSON.stringify(entry))
      if (bytes > MAX_LIST_BYTES) break
      runtimes.push(entry)
    }
    const [first] = rows
    const payload = { operation: 'list_runtimes', count: runtimes.length, total: rows.length, runtimes }
    return { runtime: first === undefined || runtimes.length === 0 ? summaryView('runtime-list-summary') : this.viewNow(first), payload }
  }

  requestView(requester: string, command: CommandOf<'get_request'>): ControlResult {
    const row = getRequest(this.#deps.store, requester, command.key)
    if (row === undefined) throw fail('request_not_found', 'no command with this key is kept', 'send the command again')
    const runtime = row.runtimeId === null ? undefined : getRuntime(this.#deps.store, row.runtimeId)
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
    return { runtime: runtime === undefined ? summaryView('request-summary') : this.viewNow(runtime), payload }
  }

  /** What ran before, as things are now. */
  replay(row: ControlRequestRow): { statuses: readonly ControlStatus[]; result: ControlResult } {
    const kept = asRecord(row.terminal) as { runtime?: ControlResult['runtime']; payload?: Json }
    const runtime = row.runtimeId === null ? undefined : getRuntime(this.#deps.store, row.runtimeId)
    const fresh = runtime === undefined ? kept.runtime : this.viewNow(runtime)
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
}

/** An answer needs a runtime, also where it is about none. */
export const summaryView = (id: string): ControlResult['runtime'] => ({
  ...{ runtime_id: id, provider: 'fly', lifecycle_phase: 'ready', protocol_compatibility: [], metadata: { summary: true } },
})
