/** What a substrate made, against what was asked for; pure. */
import { asJson } from '../../base/json.ts'
import type { Provisioned, Readiness } from '../../runtime/adapter.ts'
import { readGuestDetails } from '../../runtime/contract/managed.ts'
import type { RuntimePatch, RuntimeRow } from '../../store/selling/runtimes.ts'
import { fail } from './failures.ts'
import { provisionInputOf } from './order.ts'

/** AgentStartupPhase, as far as the phase of a status does not say it: `requested`, `ready` and `failed` are phases themselves. */
type StartupPhase = 'provisioning_vm' | 'booting_guest' | 'waiting_for_service_ready' | 'waiting_for_keypackage_publish'

/** @param readiness undefined: there is nothing to ask yet. A guest whose status is believed has booted. */
export function startupPhaseOf(readiness: Pick<Readiness, 'status'> | undefined): StartupPhase {
  if (readiness === undefined) return 'provisioning_vm'
  if (readiness.status === undefined) return 'booting_guest'
  const isServing = readGuestDetails(readiness.status.details)?.service_probe_satisfied === true
  return isServing ? 'waiting_for_keypackage_publish' : 'waiting_for_service_ready'
}

export function patchOfProvisioned(row: RuntimeRow, provisioned: Provisioned): RuntimePatch {
  return {
    handle: provisioned.handle,
    // What its agent speaks, not all that the substrate could have served.
    protocols: provisioned.protocols.filter((protocol) => protocol === row.protocol),
    metadata: provisioned.metadata,
    region: row.region === null || row.region === '' ? (provisioned.region ?? null) : row.region,
  }
}

/** @throws ControlError unsupported_protocol, runtime_class_unavailable */
export function assertAsAsked(row: RuntimeRow, provisioned: Provisioned): void {
  if (row.protocol !== null && !provisioned.protocols.includes(row.protocol)) {
    throw fail(
      'unsupported_protocol',
      `the runtime speaks ${provisioned.protocols.join(', ') || 'nothing'}, not ${row.protocol}`,
      'choose another protocol',
    )
  }
  const got = provisioned.runtimeClass
  if (got !== undefined && got !== row.runtimeClass && got !== row.provider) {
    throw fail('runtime_class_unavailable', `the substrate gave the class ${got}, not ${row.runtimeClass}`, 'choose another class')
  }
}

/** Of one whose time begins: secrets are forgotten, a run has a deadline. @param graceMs what the host waits beyond a run's own time */
export function patchOfReady(row: RuntimeRow, at: number, graceMs: number): RuntimePatch {
  const { session, target, params, timeoutSecs } = provisionInputOf(row)
  // A guest that is made anew says hello again.
  const hello = session === undefined ? undefined : { token: session.token, relays: session.relays }
  const input = asJson({ session: hello, target, params, timeoutSecs })
  const isLimited = row.protocol === null && timeoutSecs !== undefined
  return { away: null, input, ...(isLimited ? { deadline: at + timeoutSecs * 1000 + graceMs } : {}) }
}
