/** What is believed of a guest: its status counts only with the boot id that the host itself reads. */
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Readiness } from '../adapter.ts'
import { decodeResult, decodeStatus, type RuntimeStatusSnapshot, type RuntimeTerminalResult } from '../contract/lifecycle.ts'
import { readGuestDetails } from '../contract/managed.ts'
import type { IncusClient } from './client.ts'
import { readGuestFile, readUnsized } from './files.ts'
import { instanceStatus } from './instances.ts'
import type { IncusHandle } from './names.ts'

const BOOT_ID_PATH = '/proc/sys/kernel/random/boot_id'
const MAX_STATUS_BYTES = 256 * 1024

/** @throws incus_not_found when the instance is no more */
export async function observe(incus: IncusClient, handle: IncusHandle): Promise<Readiness | undefined> {
  let status: string | undefined
  try {
    status = await instanceStatus(incus, handle.instance)
    if (status === undefined) return undefined
    if (status === 'Stopped') return await observeStopped(incus, handle)
    if (status === 'Running') return await observeRunning(incus, handle)
  } catch (error) {
    // A machine that stops just now, or a virtual machine whose agent is not up yet.
    if (isPylonError(error, 'incus_unreachable') || isPylonError(error, 'timeout') || isPylonError(error, 'incus_untrusted')) {
      return { state: 'unreachable', message: error.message }
    }
    if (status === 'Running') return { state: 'starting', message: `The guest cannot be looked at yet: ${messageOf(error)}` }
    throw error
  }
  // Also what the instances of a dead cluster member show, while they may well run on.
  if (status === 'Error') return { state: 'unreachable', message: 'Incus does not reach the member that holds the instance.' }
  return { state: 'starting', message: `The instance is ${status.toLowerCase()}.` }
}

async function observeRunning(incus: IncusClient, handle: IncusHandle): Promise<Readiness> {
  const [statusFile, bootFile] = await Promise.all([
    readGuestFile(incus, handle.instance, handle.status_path, MAX_STATUS_BYTES),
    readUnsized(incus, handle.instance, BOOT_ID_PATH, 128),
  ])
  const bootId = bootFile?.data.toString('utf8').trim() ?? ''
  if (bootId === '') return { state: 'starting', message: 'The instance has booted and shows no boot id yet.' }
  if (statusFile === undefined) return { state: 'starting', bootId, message: 'The instance has booted; its guest has not spoken yet.' }
  const decoded = tryDecode(() => decodeStatus(statusFile.data.toString('utf8'), handle.status_path))
  if (typeof decoded === 'string') return { state: 'starting', bootId, message: decoded }
  if (decoded.boot_id !== bootId) return { state: 'starting', bootId, message: 'The status of the guest is of an earlier boot.' }
  return believe(decoded, bootId, handle)
}

function believe(status: RuntimeStatusSnapshot, bootId: string, handle: IncusHandle): Readiness {
  const { state, message } = status
  if (state === 'completed' || state === 'failed') return { state, bootId, message, status }
  if (state !== 'ready') return { state: 'starting', bootId, message, status }
  const details = readGuestDetails(status.details)
  const isProbed = handle.protocol === null || (details?.agent_kind === handle.protocol && details.probe !== undefined)
  if (isProbed) return { state, bootId, message, status }
  return { state: 'starting', bootId, message: 'The guest says ready without the probe that shows it.', status }
}

/** A one-shot run may have ended its machine with its last word; anything else that stopped is stopped. */
async function observeStopped(incus: IncusClient, handle: IncusHandle): Promise<Readiness> {
  const result = handle.protocol === null ? await readResult(incus, handle) : undefined
  if (result === undefined) return { state: 'stopped', message: 'The instance is stopped.' }
  return { state: result.status, message: result.message }
}

async function readResult(incus: IncusClient, handle: IncusHandle): Promise<RuntimeTerminalResult | undefined> {
  const file = await readGuestFile(incus, handle.instance, handle.result_path, MAX_STATUS_BYTES)
  const decoded = file === undefined ? undefined : tryDecode(() => decodeResult(file.data.toString('utf8'), handle.result_path))
  return typeof decoded === 'object' ? decoded : undefined
}

/** The value, or why there is none. */
function tryDecode<T extends object>(decode: () => T): T | string {
  try {
    return decode()
  } catch (error) {
    return messageOf(error)
  }
}
