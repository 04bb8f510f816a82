/** What a substrate that runs nothing but the agent images of the owner refuses before it makes anything; pure. */
import { PylonError } from '../../base/errors.ts'
import type { ProvisionInput } from '../adapter.ts'
import type { Protocol } from '../contract/prompt.ts'

/**
 * @param provider for the message
 * @returns the protocol that the agent speaks
 * @throws runtime_unsupported for a one-shot run, spec_mount_refused, invalid_request for a cluster member
 */
export function assertAgentRequest(provider: string, { protocol, spec, target }: ProvisionInput): Protocol {
  if (protocol === null) {
    throw new PylonError('runtime_unsupported', `${provider} runs no one-shot commands: use local or incus, or provision an agent.`)
  }
  const [mount] = spec.mounts
  if (mount !== undefined) {
    throw new PylonError('spec_mount_refused', `${provider} mounts nothing at ${mount.guest_path}: its image says where state lies.`, {
      details: { guest_path: mount.guest_path },
    })
  }
  if (target !== undefined) {
    throw new PylonError('invalid_request', `${provider} has no cluster members: leave the target out.`, { details: { field: 'target' } })
  }
  return protocol
}

/** What `pylon guest --session` is told in an image that gets no launch file. */
export function guestEnv({ runtimeId, protocol, env, spec }: ProvisionInput): Readonly<Record<string, string>> {
  return {
    ...env,
    PYLON_RUNTIME_ID: runtimeId,
    ...(protocol === null ? {} : { PYLON_PROTOCOL: protocol }),
    ...(spec.entry_command === undefined ? {} : { PYLON_ENTRY_COMMAND: spec.entry_command }),
  }
}
