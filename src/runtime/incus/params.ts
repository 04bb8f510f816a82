/** The provider parameters of a provision request: they choose among what the owner configured, never beyond it. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import { shapeError } from '../contract/spec.ts'
import type { IncusSettings } from './settings.ts'

const text = z.string().max(256).optional()

// The fields of the published `incus` parameters, and two of ours: type and expose.
const paramsShape = z.strictObject({
  guest_role: z.enum(['managed-openclaw', 'pikaci-runner']).optional(),
  endpoint: text,
  project: text,
  profile: text,
  storage_pool: text,
  image_alias: text,
  insecure_tls: z.boolean().optional(),
  openclaw_guest_ipv4_cidr: text,
  openclaw_proxy_host: text,
  type: z.enum(['container', 'virtual-machine']).default('container'),
  expose: z.array(z.int().min(1).max(65_535)).max(8).default([]),
})

export interface IncusParams {
  readonly imageAlias: string
  readonly type: 'container' | 'virtual-machine'
  /** Ports of the guest that the host's loopback reaches. */
  readonly expose: readonly number[]
}

/**
 * @param alias from spec.incus, where the spec names one
 * @throws invalid_request for an unknown field, or one that asks for another place than the configured one
 */
export function decodeParams(
  params: Readonly<Record<string, Json>> | undefined,
  settings: IncusSettings,
  wanted: { readonly alias: string | undefined; readonly managed: boolean },
): IncusParams {
  const parsed = paramsShape.safeParse(params ?? {})
  if (!parsed.success) throw shapeError('The incus parameters', 'invalid_request', parsed.error)
  const { data } = parsed
  const endpoint = 'url' in settings.endpoint ? settings.endpoint.url : `unix:${settings.endpoint.socketPath}`
  const fixed: readonly (readonly [string, string | undefined, string])[] = [
    ['endpoint', data.endpoint, endpoint],
    ['project', data.project, settings.project],
    ['profile', data.profile, settings.profile],
    ['storage_pool', data.storage_pool, settings.pool],
  ]
  for (const [field, asked, configured] of fixed) {
    if (asked !== undefined && asked.trim() !== '' && asked !== configured) throw refuse(field, 'is set by the owner of the node')
  }
  if (data.insecure_tls === true) throw refuse('insecure_tls', 'does not exist here: the server certificate is pinned')
  if (data.openclaw_guest_ipv4_cidr !== undefined || data.openclaw_proxy_host !== undefined) {
    throw refuse('openclaw_*', 'does not exist here: prompts need no network')
  }
  const standard = wanted.managed ? settings.images.managed : settings.images.oneShot
  const imageAlias = data.image_alias ?? wanted.alias ?? standard
  const allowed = [settings.images.managed, settings.images.oneShot, ...(settings.images.allowed ?? [])]
  if (!allowed.includes(imageAlias))
    throw refuse('image_alias', `is not among the images of this node (${[...new Set(allowed)].join(', ')})`)
  if (data.expose.length > 0 && settings.proxyPorts === undefined)
    throw refuse('expose', 'needs proxy ports in the configuration of the node')
  return { imageAlias, type: data.type, expose: [...new Set(data.expose)] }
}

function refuse(field: string, why: string): PylonError {
  return new PylonError('invalid_request', `The incus parameter ${field} ${why}.`, { details: { field } })
}
