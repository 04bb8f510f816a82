/** Instances: create, look, change state, snapshots. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { type IncusClient, orAbsent } from './client.ts'

export type Devices = Readonly<Record<string, Readonly<Record<string, string>>>>

/** Null is what a list has of the instances of a member that is down. */
export function orEmpty<T extends z.ZodType>(schema: T, empty: z.output<T>) {
  return schema.nullish().transform((value) => value ?? empty)
}

const instance = z.looseObject({
  name: z.string(),
  status: z.string(),
  location: z.string().default('none'),
  config: orEmpty(z.record(z.string(), z.string()), {}),
  devices: orEmpty(z.record(z.string(), z.record(z.string(), z.string())), {}),
})

/** Of one that cannot be read otherwise: that it is there. */
const onlyName = z.looseObject({ name: z.string() }).transform(({ name }) => instance.parse({ name, status: 'Error' }))

export type Instance = Readonly<z.output<typeof instance>>

export interface NewInstance {
  readonly name: string
  readonly type: 'container' | 'virtual-machine'
  readonly imageAlias: string
  readonly profiles: readonly string[]
  readonly config: Readonly<Record<string, string>>
  readonly devices: Devices
  /** Cluster member. */
  readonly target?: string | undefined
}

const path = (name: string) => `/1.0/instances/${encodeURIComponent(name)}`

/** @throws incus_image_missing, incus_conflict when the name is taken, incus_limit_reached, incus_forbidden */
export async function createInstance(incus: IncusClient, { imageAlias, target, ...rest }: NewInstance): Promise<void> {
  const body = { ...rest, source: { type: 'image', alias: imageAlias } }
  await incus.run('POST', '/1.0/instances', { query: { target }, body, waitMs: 600_000 })
}

/** Undefined where there is none. */
export async function getInstance(incus: IncusClient, name: string): Promise<Instance | undefined> {
  const answer = await orAbsent(incus.call('GET', path(name)))
  return answer === undefined ? undefined : parse(instance, answer.metadata, path(name))
}

/** Item by item: one that cannot be read hides no other. */
export async function listInstances(incus: IncusClient): Promise<readonly Instance[]> {
  const { metadata } = await incus.call('GET', '/1.0/instances', { query: { recursion: '1' } })
  return parse(z.array(z.unknown()), metadata, '/1.0/instances').flatMap(
    (one) => instance.safeParse(one).data ?? onlyName.safeParse(one).data ?? [],
  )
}

/** What the daemon sees of it now; `Error` is also what a dead cluster member's instances show. */
export async function instanceStatus(incus: IncusClient, name: string): Promise<string | undefined> {
  const answer = await orAbsent(incus.call('GET', `${path(name)}/state`))
  return answer === undefined ? undefined : parse(z.looseObject({ status: z.string() }), answer.metadata, path(name)).status
}

export async function setInstanceState(
  incus: IncusClient,
  name: string,
  action: 'start' | 'stop' | 'restart',
  options: { readonly force?: boolean; readonly signal?: AbortSignal } = {},
): Promise<void> {
  const body = { action, timeout: 30, force: options.force ?? false }
  await incus.run('PUT', `${path(name)}/state`, { body, signal: options.signal })
}

/** Adds this device, or takes the place of the one of its name; the others stay. */
export async function setDevice(incus: IncusClient, name: string, devices: Devices): Promise<void> {
  await incus.run('PATCH', path(name), { body: { devices } })
}

/** Gone is fine. */
export async function deleteInstance(incus: IncusClient, name: string): Promise<void> {
  await orAbsent(incus.run('DELETE', path(name)))
}

/** The parsed answer. @throws incus_failed naming the request */
export function parse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new PylonError(
    'incus_failed',
    `${what}: Incus answered in a shape that this version does not know (${issue?.path.join('.')}: ${issue?.message}).`,
  )
}
