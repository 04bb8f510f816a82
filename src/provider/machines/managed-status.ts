/** ManagedRuntimeStatus: what a server says of a runtime in one word, with the name that one of its fields had before. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import type { RuntimeRow } from '../../store/selling/runtimes.ts'

const managedRuntimeStatus = z.preprocess(
  (value) => {
    if (typeof value !== 'object' || value === null || !('guest_service_ready' in value)) return value
    const { guest_service_ready, ...rest } = value
    return { startup_probe_satisfied: guest_service_ready, ...rest }
  },
  z.object({
    id: z.string().min(1),
    status: z.enum(['running', 'starting', 'failed']).default('running'),
    startup_probe_satisfied: z.boolean().default(false),
    guest_ready: z.boolean().default(false),
  }),
)

export type ManagedRuntimeStatus = Readonly<z.output<typeof managedRuntimeStatus>>

/** Takes the legacy alias `guest_service_ready`. @throws runtime_failed */
export function decodeManagedStatus(value: unknown): ManagedRuntimeStatus {
  const parsed = managedRuntimeStatus.safeParse(value)
  if (parsed.success) return parsed.data
  throw new PylonError('runtime_failed', `The status of a runtime is malformed: ${parsed.error.issues[0]?.message ?? 'unknown'}.`)
}

export function managedStatusOf(row: Pick<RuntimeRow, 'id' | 'state'>): ManagedRuntimeStatus {
  const ready = row.state === 'ready' || row.state === 'ended'
  const status = ready ? 'running' : row.state === 'requested' || row.state === 'provisioning' ? 'starting' : 'failed'
  return { id: row.id, status, startup_probe_satisfied: ready, guest_ready: ready }
}
