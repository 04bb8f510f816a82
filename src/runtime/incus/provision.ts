/** Makes the instance of a runtime, or finishes what an earlier try began: every step may have been done already. */
import { z } from 'zod'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { ProvisionInput } from '../adapter.ts'
import { pathsUnder } from '../contract/paths.ts'
import { newTicketKey } from '../contract/ticket.ts'
import { buildRuntimePlan, type RuntimePlan } from '../plan.ts'
import type { IncusClient } from './client.ts'
import { GuestFiles } from './guest-files.ts'
import { findImage } from './images.ts'
import { ensureVolume, labelVolume, listVolumes, resizeVolume, volumeOf } from './incus-volumes.ts'
import { checkMounts, configOf, devicesOf, resourcesOf, volumesOf } from './instance-config.ts'
import { createInstance, getInstance, type Instance, parse, setInstanceState } from './instances.ts'
import { BOOT_PATH, launchFiles, START_PATH } from './launch-files.ts'
import {
  GUEST_CONFIG_DIR,
  handleFromLabel,
  type IncusHandle,
  instanceName,
  LABEL_KEPT,
  LABEL_NAME,
  LABEL_NODE,
  LABEL_OWNER,
  LABEL_QUOTA,
  LABEL_RUNTIME,
  LABEL_SOURCE,
  newHandle,
} from './names.ts'
import { decodeParams, type IncusParams } from './params.ts'
import type { Placement } from './placement.ts'
import { removeRuntime } from './removal.ts'
import type { IncusSettings } from './settings.ts'

/** How long a virtual machine may take until its agent takes files. */
const VM_AGENT_MS = 180_000

export interface ProvisionContext {
  readonly incus: IncusClient
  readonly settings: IncusSettings
  readonly placement: Placement
}

/** On failure what this call made is gone again; a volume that was there before stays. */
export async function provisionInstance(context: ProvisionContext, input: ProvisionInput, signal: AbortSignal): Promise<IncusHandle> {
  const { incus, settings } = context
  const { plan, params } = decodeInput(input, settings)
  const name = instanceName(input.runtimeId)
  const [found, guest] = await Promise.all([getInstance(incus, name), guestOf(incus, params.imageAlias, input)])
  if (found !== undefined) return adopt(context, input, found, signal)
  return make(context, input, plan, params, guest, signal)
}

/** What can be said of a request before anything is made for it. @throws as provisionInstance does */
export async function assertPossible({ incus, settings, placement }: ProvisionContext, input: ProvisionInput): Promise<void> {
  const { plan, params } = decodeInput(input, settings)
  const { target } = await volumesHere({ incus, settings, placement }, input, plan)
  await Promise.all([guestOf(incus, params.imageAlias, input), assertType(incus, params.type), placement.assertTarget(target)])
}

/** The volumes of a request, and the member that holds one of them already. @throws invalid_request where another is asked for */
async function volumesHere({ incus, settings }: ProvisionContext, input: ProvisionInput, plan: RuntimePlan) {
  const there = plan.mounts.length === 0 ? [] : await listVolumes(incus, settings.pool)
  const whose = { nodeId: settings.nodeId, ownerPubkey: input.ownerPubkey }
  const volumes = volumesOf(plan, instanceName(input.runtimeId), whose, new Set(there.map(({ name }) => name)))
  const found = there.find(({ name, location }) => location !== 'none' && location !== '' && volumes.some((one) => one.name === name))
  if (found !== undefined && input.target !== undefined && input.target !== found.location) {
    throw new PylonError('invalid_request', `The volume of this name is on the member ${found.location}: leave the target out.`, {
      details: { field: 'target' },
    })
  }
  const target = input.target ?? found?.location
  return { volumes, target }
}

const driversShape = z.looseObject({ environment: z.looseObject({ driver: z.string().default('') }) })
const projectShape = z.looseObject({ config: z.record(z.string(), z.string()).default({}) })

/** Virtual machines need a driver of their own and a project that allows them. @throws runtime_unsupported */
async function assertType(incus: IncusClient, type: IncusParams['type']): Promise<void> {
  if (type === 'container') return
  const [server, project] = await Promise.all([incus.call('GET', '/1.0'), incus.call('GET', `/1.0/projects/${incus.project}`)])
  const { driver } = parse(driversShape, server.metadata, '/1.0').environment
  const { config } = parse(projectShape, project.metadata, `/1.0/projects/${incus.project}`)
  if (driver.split(' | ').includes('qemu') && config['limits.virtual-machines'] !== '0') return
  throw new PylonError('runtime_unsupported', 'This Incus runs no virtual machines: leave the type out, or ask for a container.')
}

/** What can be said without asking Incus. @throws spec_mount_refused, invalid_request */
function decodeInput(input: ProvisionInput, settings: IncusSettings): { plan: RuntimePlan; params: IncusParams } {
  const plan = buildRuntimePlan(input.spec)
  checkMounts(plan, settings)
  const params = decodeParams(input.params, settings, { alias: input.spec.incus?.image_alias, managed: input.protocol !== null })
  return { plan, params }
}

/** Which guest the image carries; its property `pylon.guest` says. @throws incus_image_missing, runtime_unsupported */
async function guestOf(incus: IncusClient, alias: string, input: ProvisionInput): Promise<'full' | 'shell'> {
  const image = await findImage(incus, alias)
  if (image === undefined) {
    throw new PylonError('incus_image_missing', `Incus has no image ${alias}: make it with: pylon runtime image build.`, {
      details: { alias },
    })
  }
  const guest = image.properties['pylon.guest'] === 'shell' ? 'shell' : 'full'
  const { paths } = input.spec
  if (guest === 'shell' && JSON.stringify(paths) !== JSON.stringify(pathsUnder(paths.state_dir))) {
    throw new PylonError(
      'runtime_unsupported',
      `The shell guest of the image ${alias} knows only the usual names below the state directory.`,
    )
  }
  if (guest === 'shell' && input.protocol !== null) {
    throw new PylonError(
      'runtime_unsupported',
      `The image ${alias} carries the shell guest, which serves no prompts: use the Debian image.`,
    )
  }
  return guest
}

async function make(
  context: ProvisionContext,
  input: ProvisionInput,
  plan: RuntimePlan,
  params: IncusParams,
  guest: 'full' | 'shell',
  signal: AbortSignal,
): Promise<IncusHandle> {
  const { incus, settings, placement } = context
  const { volumes, target } = await volumesHere(context, input, plan)
  const place = await placement.reserve({ target, expose: params.expose })
  const { state_dir, status_path, result_path, guest_log_path } = plan.paths
  const handle = newHandle({
    runtime_id: input.runtimeId,
    type: params.type,
    pool: settings.pool,
    target: place.target,
    volumes: volumes.map(({ name, persistent }) => ({ name, persistent })),
    protocol: input.protocol,
    guest,
    has_session: guest === 'full' && input.session !== undefined,
    ...{ state_dir, status_path, result_path, guest_log_path },
    address: place.address,
    gateway: place.gateway,
    ports: [...place.ports],
  })
  const made: string[] = []
  let isMine = false
  try {
    const { volumeMib } = resourcesOf(plan, settings)
    for (const volume of volumes) if (await volumeFor(context, input, handle, volume, volumeMib)) made.push(volume.name)
    // Not given up half way: what is being made could not be removed.
    await createInstance(incus, {
      name: handle.instance,
      type: params.type,
      imageAlias: params.imageAlias,
      profiles: [settings.profile],
      config: configOf(plan, handle, input.ownerPubkey, settings),
      devices: devicesOf(plan, handle, settings, doorOf(input, handle)),
      target: place.target,
    })
    isMine = true
    await launch(context, input, handle, signal, true)
    return handle
  } catch (error) {
    // Another try of the same request got there first: what it makes is not ours to take away.
    if (!isMine && isPylonError(error, 'incus_conflict')) throw error
    const keep = handle.volumes.filter(({ name }) => !made.includes(name)).map(({ name }) => name)
    // What stays of it is swept: the reason of the caller is why it was not made.
    await Promise.allSettled([removeRuntime(incus, handle, keep)])
    throw error
  } finally {
    place.release()
  }
}

/** A virtual machine has no door: Incus lets nothing listen inside for it. */
function doorOf({ session }: ProvisionInput, { type, guest }: IncusHandle): string | undefined {
  return type === 'container' && guest === 'full' ? session?.doorSocket : undefined
}

/** Whether it was made. One that is there was kept by somebody, and stays kept until a teardown says otherwise. */
async function volumeFor(
  { incus, settings }: ProvisionContext,
  input: ProvisionInput,
  handle: IncusHandle,
  { name, persistent, source }: { readonly name: string; readonly persistent: boolean; readonly source: string },
  quotaMib: number,
): Promise<boolean> {
  const where = volumeOf(handle, name)
  const labels = {
    [LABEL_NODE]: settings.nodeId,
    [LABEL_RUNTIME]: handle.runtime_id,
    [LABEL_QUOTA]: String(quotaMib),
    ...(persistent ? { [LABEL_OWNER]: input.ownerPubkey, [LABEL_SOURCE]: source, [LABEL_NAME]: input.spec.identity.instance_name } : {}),
  }
  const config = { ...labels, [LABEL_KEPT]: 'false', size: `${quotaMib}MiB` }
  if ((await ensureVolume(incus, where, config)) === 'created') return true
  await labelVolume(incus, where, labels)
  // A pool that cannot make it smaller leaves it as it is.
  await Promise.allSettled([resizeVolume(incus, where, quotaMib)])
  return false
}

/** An instance of this runtime that an earlier try left, at whatever step. @throws incus_conflict when it is not ours */
async function adopt(context: ProvisionContext, input: ProvisionInput, instance: Instance, signal: AbortSignal): Promise<IncusHandle> {
  const { config, name } = instance
  const isOurs =
    config[LABEL_NODE] === context.settings.nodeId && config[LABEL_RUNTIME] === input.runtimeId && config[LABEL_OWNER] === input.ownerPubkey
  const handle = isOurs ? handleFromLabel(config['user.pylon.handle']) : undefined
  if (handle === undefined) {
    throw new PylonError(
      'incus_conflict',
      `There is an instance ${name} that is not of this runtime: remove it, or ask again under a new id.`,
    )
  }
  try {
    await launch(context, input, handle, signal, false)
    return handle
  } catch (error) {
    const keep = handle.volumes.filter(({ persistent }) => persistent).map((volume) => volume.name)
    // As above.
    await Promise.allSettled([removeRuntime(context.incus, handle, keep)])
    throw error
  }
}

/**
 * The start first: its init waits for the files, and the daemon opens the file system once instead of twice. A guest that
 * had its files keeps them, with the ticket key that it knows.
 */
async function launch(
  { incus, settings }: ProvisionContext,
  input: ProvisionInput,
  handle: IncusHandle,
  signal: AbortSignal,
  isNew: boolean,
): Promise<void> {
  const { instance } = handle
  const files = new GuestFiles(incus, instance)
  if (signal.aborted) throw new PylonError('cancelled', `The provision of ${handle.runtime_id} was given up.`)
  await start(incus, instance, signal)
  if (handle.type === 'virtual-machine') await untilFilesWork(incus, files, signal)
  if (!isNew && (await files.stat(START_PATH)) !== undefined) return
  await files.write({ path: GUEST_CONFIG_DIR, type: 'directory', mode: 0o700 })
  const hasDoor = doorOf(input, handle) !== undefined
  for (const file of launchFiles(input, handle, settings.guest, { ticketKey: newTicketKey(), hasDoor })) await files.write(file)
  await files.write({ path: START_PATH, type: 'symlink', mode: 0o777, data: BOOT_PATH })
}

async function start(incus: IncusClient, instance: string, signal: AbortSignal): Promise<void> {
  try {
    await setInstanceState(incus, instance, 'start', { signal })
  } catch (error) {
    if (!(isPylonError(error, 'incus_conflict') && /already running/i.test(error.message))) throw error
  }
}

async function untilFilesWork({ scope }: IncusClient, files: GuestFiles, signal: AbortSignal): Promise<void> {
  let reason = new PylonError('timeout', 'The agent of the machine does not answer.')
  const works = async (limit: AbortSignal) => {
    while (!signal.aborted && !limit.aborted) {
      try {
        return await files.stat('/')
      } catch (error) {
        if (!isPylonError(error)) throw error
        reason = error
      }
      await scope.sleep(1000)
    }
    throw reason
  }
  await scope.within('the agent of the machine', VM_AGENT_MS, works, () => reason)
}
