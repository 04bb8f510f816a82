/**
 * The life of a runtime record and of its lease: states and the steps between them; pure. The store refuses every other step.
 *
 *   runtime                              (instance lost, unhealthy)
 *                                     +------------- unreachable
 *                                     v                ^  |   |
 *   requested --> provisioning ---> ready -------------+--+   |
 *       |              |  |  ^        |  \                |   |
 *       |   (a restart |  |  +--------+   \ (one-shot     |   |
 *       |    takes it  |  | (recovering)   \  ended)      |   |
 *       |    up again) |  |            |    v             |   |
 *       |              |  +--> failed <+-- ended          |   |
 *       |              |        |      |    |             |   |
 *       |              +--------+------+----+-------------+---+
 *       v                       v
 *     gone <---------------- teardown (again after a restart)
 *
 *   `requested` has no instance and may wait for payment; from `provisioning` on there may be one, and only `teardown`
 *   leads out. `failed` still has something to tear down, `ended` is a finished one-shot run that is kept for a look.
 *
 *   lease      quoted --> paid --> active --> ended
 *                |          |        |          |
 *                v          +--------+----------+--> refunding <-> refunded (again for what is paid after that)
 *             expired --> paid (late) -------------> refunding
 */
import type { ControlPhase } from '../../nostr/control/vocabulary.ts'
import type { LeaseState } from '../../store/selling/leases.ts'
import type { RuntimeState } from '../../store/selling/runtimes.ts'

const RUNTIME_NEXT: Readonly<Record<RuntimeState, readonly RuntimeState[]>> = {
  requested: ['provisioning', 'gone'],
  provisioning: ['provisioning', 'ready', 'ended', 'failed', 'teardown'],
  ready: ['provisioning', 'unreachable', 'ended', 'failed', 'teardown'],
  unreachable: ['provisioning', 'ready', 'ended', 'failed', 'teardown'],
  ended: ['teardown'],
  failed: ['provisioning', 'teardown'],
  teardown: ['teardown', 'gone'],
  gone: [],
}

const LEASE_NEXT: Readonly<Record<LeaseState, readonly LeaseState[]>> = {
  quoted: ['paid', 'expired'],
  expired: ['paid'],
  paid: ['active', 'ended', 'refunding'],
  active: ['active', 'ended', 'refunding'],
  ended: ['refunding'],
  refunding: ['refunded'],
  refunded: ['refunding'],
}

/** Whether there may be an instance on the substrate. */
export function mayHaveInstance(state: RuntimeState): boolean {
  return state !== 'requested' && state !== 'gone'
}

/** States that take a place of the capacity. */
export const LIVING_STATES: readonly RuntimeState[] = ['provisioning', 'ready', 'unreachable', 'ended', 'failed', 'teardown']

export function canStep(from: RuntimeState, to: RuntimeState): boolean {
  return RUNTIME_NEXT[from].includes(to)
}

export function canStepLease(from: LeaseState, to: LeaseState): boolean {
  return LEASE_NEXT[from].includes(to)
}

/** The published phase of a state: `teardown` also once it is gone, as records that are kept show it. */
export function phaseOf(state: RuntimeState): ControlPhase {
  switch (state) {
    case 'requested':
      return 'queued'
    case 'provisioning':
      return 'provisioning'
    case 'ready':
    case 'unreachable':
    case 'ended':
      return 'ready'
    case 'failed':
      return 'failed'
    case 'teardown':
    case 'gone':
      return 'teardown'
  }
}
