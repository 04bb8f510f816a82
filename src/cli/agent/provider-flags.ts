/** Which flags of `pylon agent new` belong to which provider; pure. */
import { PylonError } from '../../base/errors.ts'

export const PROVIDERS = ['local', 'incus', 'microvm', 'fly', 'workers'] as const
export type Provider = (typeof PROVIDERS)[number]

interface Flag {
  readonly name: string
  readonly describe: string
  readonly of: readonly Provider[]
}

/** Those that not every provider has. */
export const PROVIDER_FLAGS: readonly Flag[] = [
  { name: 'spawner-url', of: ['microvm'], describe: 'One of the spawners that the node lists' },
  { name: 'spawn-variant', of: ['microvm'], describe: 'prebuilt or prebuilt-cow' },
  { name: 'flake-ref', of: ['microvm'], describe: 'Nix flake of the machine' },
  { name: 'dev-shell', of: ['microvm'], describe: 'Shell of that flake' },
  { name: 'cpu', of: ['microvm'], describe: 'CPUs, at most what the class gives' },
  { name: 'memory-mb', of: ['microvm'], describe: 'Memory, at most what the class gives' },
  { name: 'ttl-seconds', of: ['microvm'], describe: 'When the spawner removes it by itself' },
  { name: 'image', of: ['incus'], describe: 'Image alias' },
  { name: 'target', of: ['incus'], describe: 'Cluster member' },
  { name: 'request', of: ['incus'], describe: 'FILE or -: an AgentProvisionRequest as JSON, no other fields than its own' },
  { name: 'cpus', of: ['local', 'incus', 'fly'], describe: 'CPUs, at most what the class gives' },
  { name: 'memory-mib', of: ['local', 'incus', 'fly'], describe: 'Memory, at most what the class gives' },
  { name: 'disk-gib', of: ['local', 'incus'], describe: 'Disk, at most what the class gives' },
  { name: 'network', of: ['local'], describe: 'none or host: whether the agent reaches the network, its model say (none)' },
]

/** The flags that a person sees who named this provider; all where none was named. */
export function flagsOf(provider: string | undefined): readonly Flag[] {
  return PROVIDER_FLAGS.filter(({ of }) => provider === undefined || (of as readonly string[]).includes(provider))
}

/** @param args as yargs gives them, by their names @throws usage naming each flag that does not fit, and whose it is */
export function assertFlagsFit(provider: Provider, args: Readonly<Record<string, unknown>>): void {
  const foreign = PROVIDER_FLAGS.filter(({ name, of }) => args[name] !== undefined && !of.includes(provider))
  const [first] = foreign
  if (first === undefined) return
  const names = foreign.map(({ name }) => `--${name}`).join(', ')
  const whose = first.of.map((one) => `--provider ${one}`).join(' or ')
  throw new PylonError(
    'usage',
    `${names} ${foreign.length === 1 ? 'does' : 'do'} not fit --provider ${provider}: --${first.name} needs ${whose}.`,
  )
}

/** The provider that an argv names, before it is parsed: its help shows what fits. */
export function providerIn(argv: readonly string[]): string | undefined {
  const at = argv.indexOf('--provider')
  if (at >= 0) return argv[at + 1]
  return argv.find((word) => word.startsWith('--provider='))?.slice('--provider='.length)
}
