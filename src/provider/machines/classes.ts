/** The runtime classes that this node has, and which one a command means; pure. */
import type { RuntimeClassConfig, RuntimesConfig } from '../../base/config-runtimes.ts'
import { ControlError, type ControlProtocol, type ControlProvider } from '../../nostr/control/vocabulary.ts'

export type RuntimeClass = RuntimeClassConfig

/** The class of a provider for which the owner configured none: named like it, never offered. */
function implicitClass(provider: ControlProvider): RuntimeClass {
  return {
    name: provider,
    provider,
    region: '',
    protocols: ['pi', 'acp'],
    price_msats_per_hour: 0,
    min_lease_s: 60,
    max_lease_s: 366 * 86_400,
    // As many as the substrate holds.
    capacity: Number.POSITIVE_INFINITY,
    pi_command: 'pi --mode rpc',
    acp_command: '',
  }
}

/** Configured ones first, then one for each provider that has none. @param providers those that have an adapter */
export function classesOf(config: RuntimesConfig, providers: readonly ControlProvider[]): RuntimeClass[] {
  const configured = config.classes.filter((entry) => providers.includes(entry.provider))
  const bare = providers.filter((provider) => !configured.some((entry) => entry.provider === provider || entry.name === provider))
  return [...configured, ...bare.map(implicitClass)]
}

export interface Wanted {
  readonly provider: ControlProvider | undefined
  readonly runtimeClass: string | undefined
  /** Null: a one-shot run. */
  readonly protocol: ControlProtocol | null
  /** Whether only classes with a price will do. */
  readonly paid: boolean
}

/**
 * The class that a command means: the one it names, else the first that fits.
 * @throws ControlError runtime_class_unavailable, unsupported_protocol, provision_unauthorized (a stranger, and nothing is offered)
 */
export function chooseClass(classes: readonly RuntimeClass[], wanted: Wanted): RuntimeClass {
  const open = wanted.paid ? classes.filter((entry) => entry.price_msats_per_hour > 0) : classes
  if (wanted.paid && open.length === 0) {
    throw new ControlError(
      'provision_unauthorized',
      'ask the owner of the node for a place on its allowlist',
      'this node rents nothing out',
    )
  }
  const ofProvider = open.filter((entry) => wanted.provider === undefined || entry.provider === wanted.provider)
  const named = ofProvider.filter((entry) => wanted.runtimeClass === undefined || entry.name === wanted.runtimeClass)
  if (named.length === 0) {
    const available = ofProvider.map((entry) => entry.name).join(', ')
    throw new ControlError(
      'runtime_class_unavailable',
      available === '' ? 'choose another provider' : `choose among: ${available}`,
      `no class ${wanted.runtimeClass ?? '(any)'} of the provider ${wanted.provider ?? '(any)'}`,
    )
  }
  const speaking = named.find((entry) => wanted.protocol === null || entry.protocols.includes(wanted.protocol))
  if (speaking === undefined) {
    throw new ControlError(
      'unsupported_protocol',
      named.some((entry) => entry.protocols.length > 0)
        ? `choose among: ${[...new Set(named.flatMap((entry) => entry.protocols))].join(', ')}`
        : 'this class is for runs only: choose another class',
      `not ${wanted.protocol}`,
    )
  }
  return speaking
}

/** How many more of a class fit into what is free beneath. */
export function freeOf(
  entry: RuntimeClass,
  living: number,
  free: { readonly instances: number; readonly vcpus: number; readonly memoryMib: number },
): number {
  const byCpu = entry.vcpu_count === undefined ? Number.POSITIVE_INFINITY : Math.floor(free.vcpus / entry.vcpu_count)
  const byMemory = entry.memory_mib === undefined ? Number.POSITIVE_INFINITY : Math.floor(free.memoryMib / entry.memory_mib)
  return Math.max(0, Math.min(entry.capacity - living, free.instances, byCpu, byMemory))
}
