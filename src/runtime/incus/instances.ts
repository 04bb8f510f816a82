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
  type: z.string().default('container'),
  location: z.string().default('none'),
  created_at: z.string().default(''),
  architecture: z.string().default(''),
  description: z.string().default(''),
  ephemeral: z.boolean().default(false),
  profiles: orEmpty(z.array(z.string()), []),
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
  readonly target?: string
}

const path = (name: string) => `/1.0/instances/${encodeURIComponent(name)}`

/** @throws incus_image_missing, incus_conflict when the name is taken, incus_limit_reached, incus_forbidden */
export async function createInstance(incus: IncusClient, input: NewInstance, signal?: AbortSignal): Promise<void> {
  const body = {
    name: input.name,
    type: input.type,
    source: { type: 'image', alias: input.imageAlias },
    profiles: input.profiles,
    config: input.config,
    devices: input.devices,
  }
  await incus.run('POST', '/1.0/instances', {
    query: { target: input.target },
    body,
    waitMs: 600_000,
    ...(signal === undefined ? {} : { signal }),
  })
}

/** Undefined where there is none. */
export async function getInstance(incus: IncusClient, name: string): Promise<{ instance: Instance; etag: string | undefined } | undefined> {
  const answer = await orAbsent(incus.call('GET', path(name)))
  return answer === undefined ? undefined : { instance: parse(instance, answer.metadata, path(name)), etag: answer.etag }
}

/** Item by item: one that cannot be read hides no other. @param filter in Incus' own words, such as `config.user.pylon.node eq abc`. */
export async function listInstances(incus: IncusClient, filter?: string): Promise<readonly Instance[]> {
  const { metadata } = await incus.call('GET', '/1.0/instances', { query: { recursion: '1', filter } })
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
  options: { readonly force?: boolean; readonly timeoutSecs?: number; readonly signal?: AbortSignal } = {},
): Promise<void> {
  const body = { action, timeout: options.timeoutSecs ?? 30, force: options.force ?? false }
  await incus.run('PUT', `${path(name)}/state`, { body, ...(options.signal === undefined ? {} : { signal: options.signal }) })
}

/** Whole config and devices, guarded by the etag of the read. @throws incus_conflict when it changed meanwhile. */
export async function replaceInstance(incus: IncusClient, current: Instance, etag: string | undefined): Promise<void> {
  const { architecture, config, devices, ephemeral, profiles, description } = current
  await incus.run('PUT', path(current.name), {
    body: { architecture, config, devices, ephemeral, profiles, description },
    ...(etag === undefined ? {} : { headers: { 'if-match': etag } }),
  })
}

/** Gone is fine. */
export async function deleteInstance(incus: IncusClient, name: string): Promise<'deleted' | 'absent'> {
  return (await orAbsent(incus.run('DELETE', path(name)).then(() => 'deleted' as const))) ?? 'absent'
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
