/** What goes wrong in a run, until it ends and everything that is down comes up. */
import { CALM } from './network.ts'
import { RELAYS } from './places.ts'
import type { Fault } from './schedule.ts'
import type { SimulatedMint, SimulatedNode, World } from './world.ts'

/** Second copies of requests of the last storm have come by then: four times its longest latency. */
const LAST_COPIES_MS = 13_000

export class Storm {
  kills = 0
  readonly problems: string[] = []
  readonly #world: World
  #isOver = false
  readonly #down = new Set<SimulatedNode>()
  readonly #hangsEnd = new Map<SimulatedMint, 'paid' | 'failed'>()

  constructor(world: World) {
    this.#world = world
  }

  begin(fault: Fault): void {
    if (this.#isOver) return
    const { network, nodes } = this.#world
    const origin = (relay: number) => RELAYS[relay] as string
    switch (fault.fault) {
      case 'weather':
        network.weather = { ...network.weather, [fault.part]: fault.value }
        break
      case 'cut':
        network.cut(origin(fault.relay))
        break
      case 'silence':
        network.silence(origin(fault.relay))
        break
      case 'relay down':
        network.down(origin(fault.relay))
        this.#after(fault.forMs, () => network.up(origin(fault.relay)))
        break
      case 'mint down':
      case 'melts hang':
      case 'rotation':
      case 'keysets lost':
      case 'states late':
      case 'mint error':
      case 'proxy error':
        this.#atMint(this.#world.mints[fault.mint] as SimulatedMint, fault)
        break
      case 'machines fail':
      case 'machines lost':
      case 'machines away':
        this.#atSubstrate(fault)
        break
      case 'kill':
        this.#kill(nodes[fault.node] as SimulatedNode, fault)
    }
  }

  #atSubstrate(fault: Extract<Fault, { fault: 'machines fail' | 'machines lost' | 'machines away' }>): void {
    const { substrate } = this.#world
    if (substrate === undefined) return
    if (fault.fault === 'machines fail') substrate.failures = fault.count
    else if (fault.fault === 'machines lost') substrate.lose()
    else {
      substrate.isAway = true
      this.#after(fault.forMs, () => {
        substrate.isAway = false
      })
    }
  }

  #atMint(at: SimulatedMint, fault: Extract<Fault, { mint: number }>): void {
    const { url, mint, faults, moods } = at
    const { network } = this.#world
    switch (fault.fault) {
      case 'mint down':
        network.down(url)
        this.#after(fault.forMs, () => network.up(url))
        break
      case 'melts hang':
        faults.apply({ hold_melts: fault.count })
        this.#hangsEnd.set(at, fault.end)
        this.#after(fault.forMs, () => this.#releaseMelts(at))
        break
      case 'rotation':
        mint.rotateKeyset(fault.feePpk)
        break
      case 'keysets lost':
        moods.keysetsAreLost = true
        this.#after(fault.forMs, () => {
          moods.keysetsAreLost = false
        })
        break
      case 'states late':
        moods.statesAreLate = true
        this.#after(fault.forMs, () => {
          moods.statesAreLate = false
        })
        break
      case 'mint error':
        moods.refuse(fault.path, fault.code, fault.count)
        break
      case 'proxy error':
        moods.failAtProxy(fault.path, fault.status, fault.isAfter, fault.count)
    }
  }

  /** The weather clears. */
  end(): void {
    this.#isOver = true
    const { network, mints, nodes, wallet, substrate, clock } = this.#world
    if (wallet !== undefined) wallet.isWell = true
    if (substrate !== undefined) {
      substrate.failures = 0
      substrate.isAway = false
    }
    network.weather = CALM
    for (const origin of RELAYS) network.up(origin)
    for (const mint of mints) {
      mint.moods.heal()
      clock.after(LAST_COPIES_MS, () => mint.moods.forgetRefusals())
      network.up(mint.url)
      this.#releaseMelts(mint)
    }
    for (const node of nodes) node.killAt({ commits: Number.POSITIVE_INFINITY, when: 'before', onDead: () => undefined })
    for (const node of this.#down) this.#restart(node)
  }

  #after(ms: number, end: () => void): void {
    this.#world.clock.after(ms, end)
  }

  /** A payment that hangs goes through in the end, or does not. */
  #releaseMelts(at: SimulatedMint): void {
    at.faults.apply({ hold_melts: 0 })
    at.mint.releaseMelts(this.#hangsEnd.get(at) ?? 'paid')
  }

  #kill(node: SimulatedNode, { commits, when, downMs }: Extract<Fault, { fault: 'kill' }>): void {
    const onDead = () => {
      this.kills++
      this.#down.add(node)
      this.#after(downMs, () => this.#restart(node))
    }
    node.killAt({ commits, when, onDead })
  }

  #restart(node: SimulatedNode): void {
    if (!this.#down.delete(node)) return
    node.start().catch((error: unknown) => this.problems.push(`${node.name} did not start: ${String(error)}`))
  }
}
