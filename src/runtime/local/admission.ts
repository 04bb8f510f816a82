/** What the local substrate takes in: parameters, isolation, network and room, judged before anything is made. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { randomHex, systemRandom } from '../../base/random.ts'
import type { Capacity, ProvisionInput } from '../adapter.ts'
import { newTicketKey } from '../contract/ticket.ts'
import { buildRuntimePlan } from '../plan.ts'
import { memoryMibOf } from './enclosure.ts'
import type { LocalRecord } from './record.ts'

/** What a runtime that names no network gets, and the most that any may have. */
export interface NetworkPolicy {
  readonly byDefault: 'none' | 'host'
  readonly allowHost: boolean
}

export interface Conditions {
  /** Whether bubblewrap works here. */
  readonly isolated: boolean
  readonly network: NetworkPolicy | undefined
  readonly free: Capacity['free']
}

const paramsShape = z.strictObject({
  /** `host` shares the network of this machine, its loopback included. */
  network: z.enum(['none', 'host']).optional(),
  /** `required`: refuse where nothing isolates. */
  isolation: z.enum(['required', 'any']).default('any'),
})

/**
 * The record of a runtime that may be made.
 * @throws invalid_request, spec_empty_field, runtime_unsupported, overloaded
 */
export function admit(input: ProvisionInput, { isolated, network: policy, free }: Conditions): LocalRecord {
  const params = paramsShape.safeParse(input.params ?? {})
  if (!params.success)
    throw new PylonError(
      'invalid_request',
      'The parameters of the local substrate are network (none or host) and isolation (required or any).',
    )
  if (input.target !== undefined) {
    throw new PylonError('invalid_request', 'local has no cluster members: leave the target out.', { details: { field: 'target' } })
  }
  buildRuntimePlan(input.spec)
  if (input.spec.entry_command === undefined) {
    throw new PylonError('spec_empty_field', 'entry_command must not be empty.', { details: { field: 'entry_command' } })
  }
  if (params.data.isolation === 'required' && !isolated) {
    throw new PylonError('runtime_unsupported', 'Nothing isolates runtimes here; install bubblewrap, or use Incus.')
  }
  const network = params.data.network ?? policy?.byDefault ?? 'none'
  if (network === 'host' && isolated && policy?.allowHost !== true) {
    throw new PylonError('runtime_unsupported', 'Runtimes may not use the network of this machine here.')
  }
  if (free.instances === 0)
    throw new PylonError('overloaded', 'All places for local runtimes are taken; tear one down, or raise the limit.')
  const memoryMib = memoryMibOf(input.spec)
  if (memoryMib > free.memoryMib)
    throw new PylonError('overloaded', `The runtime asks for ${memoryMib} MiB and ${free.memoryMib} MiB are free.`)
  return {
    version: 1,
    runtime_id: input.runtimeId,
    owner_pubkey: input.ownerPubkey,
    spec: input.spec,
    protocol: input.protocol,
    timeout_secs: input.timeoutSecs ?? null,
    // Without an enclosure it has all of the host's network, whatever it asked for.
    network: isolated ? network : 'host',
    isolated,
    env: { ...input.env },
    session: sessionOf(input),
    ticket_key: newTicketKey(),
    mark: randomHex(systemRandom, 16),
    process: null,
    group_dirs: [],
    ended: null,
  }
}

function sessionOf({ session }: ProvisionInput): LocalRecord['session'] {
  if (session === undefined) return null
  return { token: session.token, relays: [...session.relays], door_socket: session.doorSocket ?? null }
}
