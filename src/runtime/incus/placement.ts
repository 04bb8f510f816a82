/** Where a new instance goes and what it gets of the host: decided one at a time, against what exists and what is under way. */
import { z } from 'zod'
import { messageOf, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { chooseAddress, chooseMember, choosePorts, takenBy } from './allocation.ts'
import type { IncusClient } from './client.ts'
import { type Instance, listInstances, parse } from './instances.ts'
import { LABEL_NODE } from './names.ts'
import type { IncusSettings } from './settings.ts'

export interface Place {
  readonly target?: string
  readonly address?: string
  /** Of the network, with its prefix: `10.77.0.1/24`. */
  readonly gateway?: string
  readonly ports: readonly { readonly host: number; readonly guest: number }[]
  /** To be called once the instance exists or never will. */
  release(): void
}

export interface Placement {
  /** @throws invalid_request for one that is no member here, incus_unreachable for one that is not online, or where none is */
  assertTarget(target: string | undefined): Promise<void>
  /** @throws incus_limit_reached, and as assertTarget does */
  reserve(wanted: { readonly target?: string; readonly expose: readonly number[] }): Promise<Place>
}

interface Pending {
  readonly target: string | undefined
  readonly address: string | undefined
  readonly ports: readonly number[]
}

/** A member that is there answers well within it. */
const MEMBER_MS = 3000

const serverShape = z.looseObject({ environment: z.looseObject({ server_clustered: z.boolean().default(false) }) })
const memberShape = z.looseObject({ server_name: z.string(), status: z.string(), message: z.string().default('') })
const networkShape = z.looseObject({ config: z.record(z.string(), z.string()).default({}) })

export function createPlacement(incus: IncusClient, settings: IncusSettings): Placement {
  const pending = new Set<Pending>()
  const turns = new KeyedQueue()
  let isClustered: boolean | undefined
  let gateway: string | undefined

  async function decide(wanted: { readonly target?: string; readonly expose: readonly number[] }): Promise<Place> {
    await learnCluster()
    const limit = settings.limits?.instances
    const mustCompare = settings.network !== undefined || wanted.expose.length > 0 || limit !== undefined || isClustered === true
    const existing = mustCompare ? await listInstances(incus) : []
    if (limit !== undefined) checkCount(existing, limit)
    const target = await member(wanted.target, existing)
    const taken = takenBy(existing)
    const under = [...pending]
    const ports = choosePorts(
      wanted.expose.length,
      settings.proxyPorts ?? [1, 0],
      new Set([...taken.ports, ...under.flatMap((p) => p.ports)]),
    )
    const held = new Set([...taken.addresses, ...under.flatMap((p) => p.address ?? [])])
    const range = settings.network === undefined ? undefined : await rangeOf(settings.network)
    const address = range === undefined ? undefined : chooseAddress(range, held)
    const mine: Pending = { target, address, ports }
    pending.add(mine)
    return {
      ...(target === undefined ? {} : { target }),
      ...(address === undefined ? {} : { address }),
      ...(range === undefined ? {} : { gateway: range }),
      ports: wanted.expose.map((guest, i) => ({ host: ports[i] ?? 0, guest })),
      release: () => void pending.delete(mine),
    }
  }

  /** The project's own limit lets through what comes at once, so it is counted here. */
  function checkCount(existing: readonly Instance[], limit: number): void {
    const ours = existing.filter(({ config }) => config[LABEL_NODE] === settings.nodeId).length
    if (ours + pending.size < limit) return
    throw new PylonError(
      'incus_limit_reached',
      `This node holds ${ours} instances already and may hold ${limit}: tear one down or raise the limit.`,
    )
  }

  async function learnCluster(): Promise<boolean> {
    isClustered ??= parse(serverShape, (await incus.call('GET', '/1.0')).metadata, '/1.0').environment.server_clustered
    return isClustered
  }

  /** Undefined on a single machine. */
  async function member(asked: string | undefined, existing: readonly Instance[]): Promise<string | undefined> {
    if (!(await learnCluster())) {
      if (asked === undefined) return undefined
      throw unknownTarget(`This Incus is no cluster and has no member ${asked}: leave the target out.`)
    }
    const { metadata } = await incus.call('GET', '/1.0/cluster/members', { query: { recursion: '1' } })
    const members = parse(z.array(memberShape), metadata, '/1.0/cluster/members')
    const online = members.filter(({ status }) => status === 'Online').map(({ server_name }) => server_name)
    if (asked !== undefined) {
      const problem = online.includes(asked) ? await whyMute(asked) : undefined
      if (online.includes(asked) && problem === undefined) return asked
      const found = members.find(({ server_name }) => server_name === asked)
      const rest = online.filter((name) => name !== asked).join(', ')
      const others = `choose another target${rest === '' ? '' : ` (${rest})`}`
      if (problem !== undefined)
        throw new PylonError('incus_unreachable', `The cluster member ${asked} does not answer (${problem}): ${others}.`)
      if (found === undefined) throw unknownTarget(`${asked} is no member of this cluster: ${others}.`)
      throw new PylonError('incus_unreachable', `The cluster member ${asked} is ${found.status} (${found.message}): ${others}.`)
    }
    // The cluster believes a member to be online for a while after its death.
    const held = [...existing.map(({ location }) => location), ...[...pending].flatMap((p) => p.target ?? [])]
    for (let left = online; left.length > 0; ) {
      const chosen = chooseMember(left, held)
      if (chosen !== undefined && (await whyMute(chosen)) === undefined) return chosen
      left = left.filter((name) => name !== chosen)
    }
    throw new PylonError('incus_unreachable', 'No member of the Incus cluster answers.')
  }

  /** Asked of the member itself; undefined where it answers. */
  async function whyMute(name: string): Promise<string | undefined> {
    return await incus.call('GET', '/1.0/resources', { query: { target: name }, timeoutMs: MEMBER_MS }).then(
      () => undefined,
      (error: unknown) => messageOf(error),
    )
  }

  async function rangeOf(network: string): Promise<string> {
    if (gateway === undefined) {
      const path = `/1.0/networks/${encodeURIComponent(network)}`
      gateway = parse(networkShape, (await incus.call('GET', path)).metadata, path).config['ipv4.address'] ?? ''
    }
    return gateway
  }

  return {
    assertTarget: async (target) => void (await member(target, [])),
    reserve: (wanted) => turns.run('', () => decide(wanted)),
  }
}

function unknownTarget(words: string): PylonError {
  return new PylonError('invalid_request', words, { details: { field: 'target' } })
}
