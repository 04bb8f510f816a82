/** Looks at an instance from outside: what Incus says of it, and the guest's files with the boot id that the host itself reads. */
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Readiness } from '../adapter.ts'
import { judgeReadiness, MAX_RESULT_BYTES, MAX_STATUS_BYTES } from '../readiness.ts'
import type { IncusClient } from './client.ts'
import { GuestFiles } from './guest-files.ts'
import { instanceStatus } from './instances.ts'
import type { IncusHandle } from './names.ts'

/** What a guest does with its files holds no look up for longer. */
const FILES_MS = 8000
const BOOT_ID_PATH = '/proc/sys/kernel/random/boot_id'

/** Undefined when the instance is no more. */
export async function observe(incus: IncusClient, handle: IncusHandle): Promise<Readiness | undefined> {
  let status: string | undefined
  try {
    status = await instanceStatus(incus, handle.instance)
    if (status === undefined) return undefined
    if (status === 'Stopped') return await observeStopped(incus, handle)
    if (status === 'Running') return await observeRunning(incus, handle)
  } catch (error) {
    // The daemon says that it runs: a machine that stops just now, one whose agent is not up yet, or files that its tenant holds up.
    if (status === 'Running') return { state: 'starting', message: `The guest cannot be looked at yet: ${messageOf(error)}` }
    if (isPylonError(error, 'incus_unreachable') || isPylonError(error, 'timeout') || isPylonError(error, 'incus_untrusted')) {
      return { state: 'unreachable', message: error.message }
    }
    throw error
  }
  // Also what the instances of a dead cluster member show, while they may well run on.
  if (status === 'Error') return { state: 'unreachable', message: 'Incus does not reach the member that holds the instance.' }
  return { state: 'starting', message: `The instance is ${status.toLowerCase()}.` }
}

async function observeRunning(incus: IncusClient, handle: IncusHandle): Promise<Readiness> {
  const files = new GuestFiles(incus, handle.instance)
  const [status, result, boot] = await incus.scope.within('reading its files', FILES_MS, () =>
    Promise.all([
      files.read(handle.status_path, MAX_STATUS_BYTES),
      files.read(handle.result_path, MAX_RESULT_BYTES),
      files.readUnsized(BOOT_ID_PATH, 128),
    ]),
  )
  const bootId = boot?.data.toString('utf8').trim()
  return judgeReadiness({
    alive: true,
    bootId: bootId === '' ? undefined : bootId,
    statusText: status?.data.toString('utf8'),
    resultText: result?.data.toString('utf8'),
    protocol: handle.protocol,
  })
}

/** It may have ended its machine with its last word; anything else that stopped is stopped. */
async function observeStopped(incus: IncusClient, handle: IncusHandle): Promise<Readiness> {
  const result = await new GuestFiles(incus, handle.instance).read(handle.result_path, MAX_RESULT_BYTES)
  if (result === undefined) return { state: 'stopped', message: 'The instance is stopped.' }
  const resultText = result.data.toString('utf8')
  return judgeReadiness({ alive: false, bootId: undefined, statusText: undefined, resultText, protocol: null })
}
