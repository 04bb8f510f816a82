/** Takes a runtime away, at whatever step it is: gone is fine, busy is tried again. */
import { isPylonError } from '../../base/errors.ts'
import type { IncusClient } from './client.ts'
import { deleteVolume } from './incus-volumes.ts'
import { deleteInstance, instanceStatus, setInstanceState } from './instances.ts'
import type { IncusHandle } from './names.ts'

/** Incus still says `is running` for a while after a failed start. */
const TRIES = 40
const RETRY_MS = 1000

export interface Removed {
  readonly instance: 'deleted' | 'absent'
  readonly volumes: readonly string[]
  readonly kept: readonly string[]
}

/** @param options.keep names of volumes that stay */
export async function removeRuntime(
  incus: IncusClient,
  handle: IncusHandle,
  options: { readonly keep: readonly string[] },
): Promise<Removed> {
  const instance = await removeInstance(incus, handle.instance)
  const kept = handle.volumes.map(({ name }) => name).filter((name) => options.keep.includes(name))
  const volumes = handle.volumes.map(({ name }) => name).filter((name) => !options.keep.includes(name))
  for (const name of volumes) {
    const where = { pool: handle.pool, name, ...(handle.target === undefined ? {} : { target: handle.target }) }
    await retryWhileBusy(incus, () => deleteVolume(incus, where))
  }
  return { instance, volumes, kept }
}

async function removeInstance(incus: IncusClient, name: string): Promise<'deleted' | 'absent'> {
  return retryWhileBusy(incus, async () => {
    const status = await instanceStatus(incus, name)
    if (status === undefined) return 'absent'
    if (status !== 'Stopped') await stop(incus, name)
    return deleteInstance(incus, name)
  })
}

async function stop(incus: IncusClient, name: string): Promise<void> {
  try {
    await setInstanceState(incus, name, 'stop', { force: true })
  } catch (error) {
    if (!isPylonError(error, 'incus_not_found') && !isAlreadyStopped(error)) throw error
  }
}

function isAlreadyStopped(error: unknown): boolean {
  return isPylonError(error) && /already stopped|isn't running|is not running/i.test(error.message)
}

async function retryWhileBusy<T>(incus: IncusClient, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (!isPylonError(error, 'incus_conflict') || attempt >= TRIES) throw error
      await incus.scope.clock.sleep(RETRY_MS)
    }
  }
}
