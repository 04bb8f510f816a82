/** What the policies of a spec mean once a runtime has ended, pure: what is collected, and whether it goes. */
import type { RuntimePolicies } from './contract/spec.ts'

/** How a run ended; `gone` is one that left no result. */
export type Outcome = 'completed' | 'failed' | 'gone'

/** Whether outputs are collected before the instance goes. */
export function collects(policies: RuntimePolicies, outcome: Outcome): boolean {
  const { mode } = policies.output_collection
  return mode === 'always' || (mode === 'failure_only' && outcome !== 'completed')
}

/** Whether an ended runtime is destroyed by itself; the others wait for a teardown (debug_keep also keeps its volume then). */
export function destroysItself(policies: RuntimePolicies): boolean {
  return policies.retention_policy === 'destroy_on_completion'
}

/** Whether a teardown must leave the volume, whatever it was asked. */
export function keepsVolume(policies: RuntimePolicies, asked: boolean): boolean {
  return asked || policies.retention_policy === 'debug_keep'
}
