/** What goes wrong in a run, until it ends and everything that is down comes up. */
import { CALM } from './network.ts'
import { MINT, RELAYS } from './places.ts'
import type { Fault } from './schedule.ts'
import type { SimulatedNode, World } from './world.ts'

export class Storm {
  kills = 0
  readonly problems: string[] = []
  readonly #world: World
  #isOver = false
  readonly #down = new Set<SimulatedNode>()
  #hangsEnd: 'paid' | 'failed' = 'paid'

  constructor(world: World) {
    this.#world = world
  }

  begin(fault: Fault): void {
    if (this.#isOver) return
    const { network, mint, mintFaults, moods, nodes } = this.#world
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
        network.down(MINT)
        this.#after(fault.forMs, () => network.up(MINT))
        break
      case 'melts hang':
        mintFaults.apply({ hold_melts: fault.count })
        this.#hangsEnd = fault.end
        this.#after(fault.forMs, () => this.#releaseMelts())
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
        break
      case 'kill':
        this.#kill(nodes[fault.node] as SimulatedNode, fault)
    }
  }

  /** The weather clears. */
  end(): void {
    this.#isOver = true
    const { network, moods, nodes } = this.#world
    network.weather = CALM
    moods.heal()
    for (const origin of [...RELAYS, MINT]) network.up(origin)
    this.#releaseMelts()
    for (const node of nodes) node.killAt({ commits: Number.POSITIVE_INFINITY, when: 'before', onDead: () => undefined })
    for (const node of this.#down) this.#restart(node)
  }

  #after(ms: number, end: () => void): void {
    this.#world.clock.after(ms, end)
  }

  /** A payment that hangs goes through in the end, or does not. */
  #releaseMelts(): void {
    this.#world.mintFaults.apply({ hold_melts: 0 })
    this.#world.mint.releaseMelts(this.#hangsEnd)
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
