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
  readonly target: string | undefined
  readonly address: string | undefined
  /** Of the network, with its prefix: `10.77.0.1/24`. */
  readonly gateway: string | undefined
  readonly ports: readonly { readonly host: number; readonly guest: number }[]
  /** To be called once the instance exists or never will. */
  release(): void
}

interface Wanted {
  readonly target?: string | undefined
  readonly expose: readonly number[]
}

type Pending = Pick<Place, 'target' | 'address' | 'ports'>

/** A member that is there answers well within it. */
const MEMBER_MS = 3000

const serverShape = z.looseObject({ environment: z.looseObject({ server_clustered: z.boolean().default(false) }) })
const memberShape = z.looseObject({ server_name: z.string(), status: z.string(), message: z.string().default('') })
const networkShape = z.looseObject({ config: z.record(z.string(), z.string()).default({}) })

export class Placement {
  readonly #incus: IncusClient
  readonly #settings: IncusSettings
  readonly #pending = new Set<Pending>()
  readonly #turns = new KeyedQueue()
  #isClustered: boolean | undefined
  #gateway: string | undefined

  constructor(incus: IncusClient, settings: IncusSettings) {
    this.#incus = incus
    this.#settings = settings
  }

  /** @throws invalid_request for one that is no member here, incus_unreachable for one that is not online, or where none is */
  async assertTarget(target: string | undefined): Promise<void> {
    await this.#member(target, [])
  }

  /** @throws incus_limit_reached, and as assertTarget does */
  async reserve(wanted: Wanted): Promise<Place> {
    return await this.#turns.run('', () => this.#decide(wanted))
  }

  async #decide({ target: asked, expose }: Wanted): Promise<Place> {
    const { limits, network, proxyPorts = [1, 0] } = this.#settings
    const mustCompare = network !== undefined || expose.length > 0 || limits?.instances !== undefined || (await this.#learnCluster())
    const existing = mustCompare ? await listInstances(this.#incus) : []
    if (limits?.instances !== undefined) this.#checkCount(existing, limits.instances)
    const target = await this.#member(asked, existing)
    const taken = takenBy(existing)
    const under = [...this.#pending]
    const chosen = choosePorts(
      expose.length,
      proxyPorts,
      new Set([...taken.ports, ...under.flatMap((p) => p.ports.map(({ host }) => host))]),
    )
    const gateway = network === undefined ? undefined : await this.#rangeOf(network)
    const held = new Set([...taken.addresses, ...under.flatMap((p) => p.address ?? [])])
    const address = gateway === undefined ? undefined : chooseAddress(gateway, held)
    const mine: Pending = { target, address, ports: expose.map((guest, i) => ({ host: chosen[i] ?? 0, guest })) }
    this.#pending.add(mine)
    return { ...mine, gateway, release: () => void this.#pending.delete(mine) }
  }

  /** The project's own limit lets through what comes at once, so it is counted here. */
  #checkCount(existing: readonly Instance[], limit: number): void {
    const ours = existing.filter(({ config }) => config[LABEL_NODE] === this.#settings.nodeId).length
    if (ours + this.#pending.size < limit) return
    throw new PylonError(
      'incus_limit_reached',
      `This node holds ${ours} instances already and may hold ${limit}: tear one down or raise the limit.`,
    )
  }

  async #learnCluster(): Promise<boolean> {
    this.#isClustered ??= parse(serverShape, (await this.#incus.call('GET', '/1.0')).metadata, '/1.0').environment.server_clustered
    return this.#isClustered
  }

  /** Undefined on a single machine. */
  async #member(asked: string | undefined, existing: readonly Instance[]): Promise<string | undefined> {
    if (!(await this.#learnCluster())) {
      if (asked === undefined) return undefined
      throw unknownTarget(`This Incus is no cluster and has no member ${asked}: leave the target out.`)
    }
    const { metadata } = await this.#incus.call('GET', '/1.0/cluster/members', { query: { recursion: '1' } })
    const members = parse(z.array(memberShape), metadata, '/1.0/cluster/members')
    const online = members.filter(({ status }) => status === 'Online').map(({ server_name }) => server_name)
    if (asked !== undefined) {
      const problem = online.includes(asked) ? await this.#whyMute(asked) : undefined
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
    const held = [...existing.map(({ location }) => location), ...[...this.#pending].flatMap((p) => p.target ?? [])]
    for (let left = online; left.length > 0; ) {
      const chosen = chooseMember(left, held)
      if (chosen !== undefined && (await this.#whyMute(chosen)) === undefined) return chosen
      left = left.filter((name) => name !== chosen)
    }
    throw new PylonError('incus_unreachable', 'No member of the Incus cluster answers.')
  }

  /** Asked of the member itself; undefined where it answers. */
  async #whyMute(name: string): Promise<string | undefined> {
    return await this.#incus.call('GET', '/1.0/resources', { query: { target: name }, timeoutMs: MEMBER_MS }).then(
      () => undefined,
      (error: unknown) => messageOf(error),
    )
  }

  async #rangeOf(network: string): Promise<string> {
    const path = `/1.0/networks/${encodeURIComponent(network)}`
    this.#gateway ??= parse(networkShape, (await this.#incus.call('GET', path)).metadata, path).config['ipv4.address'] ?? ''
    return this.#gateway
  }
}

function unknownTarget(words: string): PylonError {
  return new PylonError('invalid_request', words, { details: { field: 'target' } })
}
