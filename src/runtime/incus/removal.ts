/** Takes a runtime away, at whatever step it is: gone is fine, busy is tried again. */
import { isPylonError } from '../../base/errors.ts'
import type { IncusClient } from './client.ts'
import { deleteVolume, volumeOf } from './incus-volumes.ts'
import { deleteInstance, instanceStatus, setInstanceState } from './instances.ts'
import type { IncusHandle } from './names.ts'

/** Incus still says `is running` for a while after a failed start. */
const TRIES = 40
const RETRY_MS = 1000

/** @param keep names of volumes that stay @returns those that are gone */
export async function removeRuntime(incus: IncusClient, handle: IncusHandle, keep: readonly string[] = []): Promise<string[]> {
  const { instance } = handle
  await retryWhileBusy(incus, async () => {
    const status = await instanceStatus(incus, instance)
    if (status !== undefined && status !== 'Stopped') await stop(incus, instance)
    if (status !== undefined) await deleteInstance(incus, instance)
  })
  const gone = handle.volumes.map(({ name }) => name).filter((name) => !keep.includes(name))
  for (const name of gone) await retryWhileBusy(incus, () => deleteVolume(incus, volumeOf(handle, name)))
  return gone
}

async function stop(incus: IncusClient, name: string): Promise<void> {
  try {
    await setInstanceState(incus, name, 'stop', { force: true })
  } catch (error) {
    const isStopped = isPylonError(error) && /already stopped|isn't running|is not running/i.test(error.message)
    if (!isPylonError(error, 'incus_not_found') && !isStopped) throw error
  }
}

async function retryWhileBusy(incus: IncusClient, work: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (!isPylonError(error, 'incus_conflict') || attempt >= TRIES) throw error
      await incus.scope.sleep(RETRY_MS)
    }
  }
}
