/** Who gets which address and host port: chosen against what exists and what is being made, pure. */
import { PylonError } from '../../base/errors.ts'
import type { Instance } from './instances.ts'

export interface Taken {
  readonly addresses: ReadonlySet<string>
  readonly ports: ReadonlySet<number>
}

/** Addresses and loopback ports that the devices of instances hold. */
export function takenBy(instances: readonly Pick<Instance, 'devices'>[]): Taken {
  const addresses = new Set<string>()
  const ports = new Set<number>()
  for (const { devices } of instances) {
    for (const device of Object.values(devices)) {
      if (device['type'] === 'nic' && device['ipv4.address'] !== undefined) addresses.add(device['ipv4.address'])
      const port = device['type'] === 'proxy' ? Number(/:(\d+)$/.exec(device['listen'] ?? '')?.[1]) : Number.NaN
      if (Number.isInteger(port)) ports.add(port)
    }
  }
  return { addresses, ports }
}

/** @param count how many @param range both ends included @throws incus_limit_reached */
export function choosePorts(count: number, range: readonly [number, number], taken: ReadonlySet<number>): number[] {
  const chosen: number[] = []
  for (let port = range[0]; port <= range[1] && chosen.length < count; port++) if (!taken.has(port)) chosen.push(port)
  if (chosen.length === count) return chosen
  throw new PylonError(
    'incus_limit_reached',
    `No host port from ${range[0]} to ${range[1]} is free: tear a runtime down or widen the range.`,
  )
}

/** The first free host address of the network, after its gateway. @param gateway such as `10.77.0.1/24` @throws incus_limit_reached */
export function chooseAddress(gateway: string, taken: ReadonlySet<string>): string {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(gateway)
  const bits = Number(match?.[5])
  if (match === null || bits < 8 || bits > 30) throw new PylonError('incus_failed', `The network has no usable IPv4 range (${gateway}).`)
  const own = match.slice(1, 5).reduce((sum, part) => sum * 256 + Number(part), 0)
  const size = 2 ** (32 - bits)
  const network = Math.floor(own / size) * size
  for (let host = 2; host < size - 1; host++) {
    const value = network + host
    const address = [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.')
    if (value !== own && !taken.has(address)) return address
  }
  throw new PylonError('incus_limit_reached', `No address of ${gateway} is free: tear a runtime down or use a larger network.`)
}

/** The online member that holds the fewest of ours; ties by name. Undefined where none is online. */
export function chooseMember(members: readonly string[], held: readonly string[]): string | undefined {
  const load = (member: string) => held.filter((location) => location === member).length
  return [...members].sort((a, b) => load(a) - load(b) || (a < b ? -1 : 1))[0]
}
