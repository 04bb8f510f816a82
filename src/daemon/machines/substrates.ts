/** The substrates of this node, from its configuration: local always, the others where the owner set them up. */
import { join } from 'node:path'
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import type { Dialer } from '../../base/dialer.ts'
import { messageOf } from '../../base/errors.ts'
import { readFileIfAny } from '../../base/files.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { VERSION } from '../../base/version.ts'
import type { RuntimeAdapter } from '../../runtime/adapter.ts'
import { FlyAdapter } from '../../runtime/fly/fly-adapter.ts'
import { guestScript } from '../../runtime/guest-script.ts'
import { IncusAdapter } from '../../runtime/incus/incus-adapter.ts'
import type { IncusSettings } from '../../runtime/incus/settings.ts'
import { LocalAdapter } from '../../runtime/local/local-adapter.ts'
import { MicrovmAdapter } from '../../runtime/microvm/microvm-adapter.ts'
import { Journal } from '../../runtime/remote/journal.ts'
import type { RemoteDeps } from '../../runtime/remote/remote-adapter.ts'
import { WorkersAdapter } from '../../runtime/workers/workers-adapter.ts'
import { guestProgram } from '../launch/guest-program.ts'

export interface SubstrateDeps {
  readonly config: RuntimesConfig
  /** Of the home: folders of local runtimes and notes about remote ones. */
  readonly dir: string
  /** The public key of the node: what it makes elsewhere carries it. */
  readonly nodePubkey: string
  readonly dialer: Dialer
  readonly scope: Scope
  readonly logger: Logger
}

/** One that can't be set up leaves the others running: its reason is logged, and doctor finds it missing. */
export function createSubstrates(deps: SubstrateDeps): { adapters: RuntimeAdapter[]; problems: { provider: string; reason: string }[] } {
  const { config } = deps
  const makers: readonly (readonly [string, boolean, (deps: SubstrateDeps) => RuntimeAdapter])[] = [
    ['incus', config.incus.enabled, ({ scope }) => new IncusAdapter(incusSettings(config, deps.nodePubkey), scope)],
    ['local', config.local.enabled, localAdapter],
    ['microvm', config.microvm.spawner_urls.length > 0, microvmAdapter],
    ['fly', config.fly.app_name !== '', flyAdapter],
    ['workers', config.workers.base_url !== '', workersAdapter],
  ]
  const adapters: RuntimeAdapter[] = []
  const problems: { provider: string; reason: string }[] = []
  for (const [provider, isWanted, make] of makers) {
    if (!isWanted) continue
    try {
      adapters.push(make({ ...deps, scope: deps.scope.child(provider) }))
    } catch (error) {
      problems.push({ provider, reason: messageOf(error) })
      deps.logger.error({ provider, reason: messageOf(error) }, 'a substrate of runtimes could not be set up')
    }
  }
  return { adapters, problems }
}

/** Where the guest program lies for Incus, on the host and inside. */
export const guestDirOf = (config: RuntimesConfig): string => config.incus.guest_dir || `/opt/pylon/${VERSION}`

export function incusSettings({ incus, ...config }: RuntimesConfig, nodeId: string): IncusSettings {
  const hostDir = guestDirOf({ incus, ...config })
  const limits = {
    ...(incus.max_instances === 0 ? {} : { instances: incus.max_instances }),
    ...(incus.max_vcpus === 0 ? {} : { vcpus: incus.max_vcpus }),
    ...(incus.max_memory_mib === 0 ? {} : { memoryMib: incus.max_memory_mib }),
  }
  const [firstPort, lastPort] = incus.proxy_ports
  return {
    endpoint: incus.url === '' ? { socketPath: incus.socket } : { url: incus.url, tls: tlsOf(incus) },
    project: incus.project,
    profile: incus.profile,
    pool: incus.pool,
    nodeId,
    images: { managed: incus.image, oneShot: incus.run_image, allowed: incus.images },
    guest: { hostDir, command: [`${hostDir}/pylon`, 'guest'], shellScript: guestScript() },
    defaults: {
      vcpus: incus.vcpu_count,
      memoryMib: incus.memory_mib,
      rootDiskGib: incus.root_disk_gib,
      processes: incus.processes,
    },
    limits,
    allowedHostPaths: incus.snapshot_roots,
    ...(incus.network === '' ? {} : { network: incus.network }),
    ...(firstPort === undefined || lastPort === undefined ? {} : { proxyPorts: [firstPort, lastPort] as const }),
  }
}

function tlsOf(incus: RuntimesConfig['incus']) {
  const read = (path: string) => (path === '' ? '' : (readFileIfAny(path) ?? ''))
  return { clientCert: read(incus.client_cert_file), clientKey: read(incus.client_key_file), serverCert: read(incus.server_cert_file) }
}

function localAdapter({ config: { local }, dir, scope }: SubstrateDeps): RuntimeAdapter {
  return new LocalAdapter({
    dir: join(dir, 'local'),
    scope,
    guest: guestProgram(),
    maxInstances: local.max_instances,
    network: { byDefault: local.network, allowHost: local.allow_host_network },
    snapshotRoots: local.snapshot_roots,
  })
}

function microvmAdapter(deps: SubstrateDeps): RuntimeAdapter {
  const { spawner_urls, max_instances } = deps.config.microvm
  return new MicrovmAdapter({ spawnerUrls: spawner_urls, maxInstances: max_instances }, remoteDeps(deps, 'microvm'))
}

function flyAdapter(deps: SubstrateDeps): RuntimeAdapter {
  const { fly } = deps.config
  const settings = {
    apiBaseUrl: fly.api_base_url,
    appName: fly.app_name,
    region: fly.region,
    image: fly.image,
    tokenFile: fly.token_file,
    nodeId: deps.nodePubkey,
    maxInstances: fly.max_instances,
  }
  return new FlyAdapter(settings, remoteDeps(deps, 'fly'))
}

function workersAdapter(deps: SubstrateDeps): RuntimeAdapter {
  const { workers } = deps.config
  const settings = {
    baseUrl: workers.base_url,
    maxInstances: workers.max_instances,
    ...(workers.token_file === '' ? {} : { tokenFile: workers.token_file }),
    ...(workers.runtime_url === '' ? {} : { runtimeUrl: workers.runtime_url }),
    ...(workers.runtime_token_file === '' ? {} : { runtimeTokenFile: workers.runtime_token_file }),
  }
  return new WorkersAdapter(settings, remoteDeps(deps, 'workers'))
}

function remoteDeps({ dir, dialer, scope }: SubstrateDeps, name: string): RemoteDeps {
  return { dialer, scope, journal: new Journal(join(dir, name)) }
}
