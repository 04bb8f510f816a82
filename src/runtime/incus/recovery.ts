/** Starts an instance again, on the executable of the node's own version. */
import { PylonError } from '../../base/errors.ts'
import type { IncusClient } from './client.ts'
import { writeGuestFile } from './guest-files.ts'
import { getInstance, type Instance, replaceInstance, setInstanceState } from './instances.ts'
import { programFiles } from './launch-files.ts'
import type { IncusHandle } from './names.ts'
import type { IncusSettings } from './settings.ts'

/** @throws runtime_gone; incus_conflict when the instance changed meanwhile */
export async function recoverInstance(
  { incus, settings }: { readonly incus: IncusClient; readonly settings: IncusSettings },
  handle: IncusHandle,
  signal: AbortSignal,
): Promise<void> {
  const found = await getInstance(incus, handle.instance)
  if (found === undefined) throw new PylonError('runtime_gone', `The instance ${handle.instance} is no more: provision a new one.`)
  const { instance, etag } = found
  const isOutdated = handle.guest === 'full' && instance.devices['pylon']?.['source'] !== settings.guest.hostDir
  if (!isOutdated) {
    await setInstanceState(incus, handle.instance, instance.status === 'Running' ? 'restart' : 'start', { force: true, signal })
    return
  }
  await replaceInstance(incus, withHostDir(instance, settings.guest.hostDir), etag)
  for (const { path, mode, data } of programFiles(settings.guest)) await writeGuestFile(incus, handle.instance, path, data, { mode })
  const status = (await getInstance(incus, handle.instance))?.instance.status
  await setInstanceState(incus, handle.instance, status === 'Running' ? 'restart' : 'start', { force: true, signal })
}

/** An older version may be gone from the host, and its device would then keep the instance from starting. */
function withHostDir(instance: Instance, hostDir: string): Instance {
  const device = { ...instance.devices['pylon'], type: 'disk', source: hostDir, path: hostDir, readonly: 'true' }
  return { ...instance, devices: { ...instance.devices, pylon: device } }
}
