/** Whether the pool holds runtimes to their sizes: a scratch container writes past them and must be stopped by it. */
import { PylonError } from '../../base/errors.ts'
import { randomHex, systemRandom } from '../../base/random.ts'
import { decodeRuntimeSpec } from '../contract/spec.ts'
import { buildRuntimePlan } from '../plan.ts'
import { execInGuest } from './guest-exec.ts'
import { ensureVolume, volumeOf } from './incus-volumes.ts'
import { configOf, devicesOf, volumesOf } from './instance-config.ts'
import { createInstance, setInstanceState } from './instances.ts'
import { instanceName, LABEL_KEPT, LABEL_NODE, LABEL_RUNTIME, newHandle } from './names.ts'
import { POOL_WITH_SIZES } from './probe.ts'
import type { ProvisionContext } from './provision.ts'
import { removeRuntime } from './removal.ts'

/** Enough for the image for runs, and little to write. */
const SIZE_MIB = 64
const WRITE_MS = 60_000

/** Undefined where both the root and a volume are held; else which is not. @throws incus_* where it could not be tried */
export async function proveSizes({
  incus,
  settings,
  placement,
}: ProvisionContext): Promise<{ reason: string; nextStep: string } | undefined> {
  const runtimeId = `incus-${randomHex(systemRandom, 8)}`
  const spec = decodeRuntimeSpec({
    identity: { runtime_id: runtimeId, instance_name: runtimeId },
    mounts: [{ kind: 'cache', guest_path: '/proof', source: 'proof', mode: 'read_write' }],
  })
  const plan = buildRuntimePlan(spec)
  const place = await placement.reserve({ expose: [] })
  const { target } = place
  const volumes = volumesOf(plan, instanceName(runtimeId), { nodeId: settings.nodeId, ownerPubkey: '' }, new Set())
  const handle = newHandle({
    runtime_id: runtimeId,
    pool: settings.pool,
    target,
    volumes: volumes.map(({ name, persistent }) => ({ name, persistent })),
  })
  const { instance } = handle
  const { network: _none, ...bare } = settings
  const devices = devicesOf(plan, handle, bare)
  try {
    const labels = { [LABEL_NODE]: settings.nodeId, [LABEL_RUNTIME]: runtimeId, [LABEL_KEPT]: 'false' }
    for (const { name } of handle.volumes) await ensureVolume(incus, volumeOf(handle, name), { ...labels, size: `${SIZE_MIB}MiB` })
    await createInstance(incus, {
      ...{ name: instance, type: 'container', imageAlias: settings.images.oneShot, profiles: [settings.profile] },
      config: configOf(plan, handle, '', settings),
      devices: { ...devices, root: { ...devices['root'], size: `${SIZE_MIB}MiB` } },
      target,
    })
    await setInstanceState(incus, instance, 'start')
    for (const dir of ['/', '/proof']) {
      if (!(await isHeld(dir))) {
        const reason = `The pool ${settings.pool} let a guest write more than ${SIZE_MIB} MiB to ${dir}, where that was its size.`
        return { reason, nextStep: POOL_WITH_SIZES }
      }
    }
    return undefined
  } finally {
    place.release()
    await removeRuntime(incus, handle)
  }

  async function isHeld(dir: string): Promise<boolean> {
    const script = `dd if=/dev/zero of=${dir}/full bs=1048576 count=${SIZE_MIB * 2} 2>/dev/null; wc -c <${dir}/full`
    const ran = await execInGuest(incus, instance, { command: ['sh', '-c', script], timeoutMs: WRITE_MS, maxBytes: 1024 })
    const written = Number(ran.stdout.trim())
    if (!(written > 0)) throw new PylonError('runtime_failed', `A scratch runtime could not write at all: ${ran.stderr.slice(0, 200)}`)
    return written <= SIZE_MIB * 2 ** 20
  }
}
