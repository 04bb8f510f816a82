/** Two relays that do their worst in any order: every event is claimed once, none that is wrong, and no cursor passes what was not handled. */
import { rmSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { cursorOf } from '../../../src/store/nostr/cursors.ts'
import { claimEvent } from '../../../src/store/nostr/seen-events.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { ScriptedRelay } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const author = testSigner(1)
const relayIndex = fc.integer({ min: 0, max: 1 })

type Step =
  | { readonly do: 'publish'; readonly on: readonly number[]; readonly ageS: number; readonly times: number }
  | { readonly do: 'forge' | 'future' | 'close' | 'drop' | 'garbage' | 'foreign_eose'; readonly on: number }
  | { readonly do: 'fail_next' | 'restart' }
  | { readonly do: 'wait'; readonly seconds: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('publish' as const),
      on: fc.constantFrom([0], [1], [0, 1]),
      ageS: fc.integer({ min: 0, max: 60 }),
      times: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'forge' as const,
        'future' as const,
        'close' as const,
        'drop' as const,
        'garbage' as const,
        'foreign_eose' as const,
      ),
      on: relayIndex,
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('fail_next' as const, 'restart' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.integer({ min: 1, max: 40 }) }) },
)

class World {
  readonly clock = new ManualClock(Date.UTC(2026, 0, 1))
  readonly relays: ScriptedRelay[]
  readonly expected = new Set<string>()
  readonly claims: string[] = []
  readonly #hostile = new Set<string>()
  #failNext = 0
  #count = 0
  node: TestNostr

  constructor(relays: ScriptedRelay[]) {
    this.relays = relays
    this.node = this.#startNode()
  }

  #startNode(dir?: string): TestNostr {
    const node = startNostr({ relays: this.relays.map((relay) => relay.url), clock: this.clock, ...(dir === undefined ? {} : { dir }) })
    node.nostr.subscribe({
      name: 'model',
      filters: [{ kinds: [1] }],
      backfillS: 3600,
      onEvent: async (event) => {
        if (this.#failNext > 0) {
          this.#failNext--
          throw new Error('not now')
        }
        if (await node.store.write(claimEvent({ id: event.id, subscription: 'model', at: this.clock.now() }))) this.claims.push(event.id)
      },
    })
    return node
  }

  #event(createdAtS: number): NostrEvent {
    return author.sign({ kind: 1, created_at: createdAtS, tags: [], content: `${this.#count++}` })
  }

  async run(one: Step): Promise<void> {
    const nowS = Math.floor(this.clock.now() / 1000)
    switch (one.do) {
      case 'publish': {
        const event = this.#event(nowS - one.ageS)
        this.expected.add(event.id)
        for (const on of one.on) {
          this.relays[on]?.stored.push(event)
          for (let i = 0; i < one.times; i++) this.relays[on]?.push(event)
        }
        break
      }
      case 'forge': {
        const event = { ...this.#event(nowS), content: 'forged' }
        this.#hostile.add(event.id)
        this.relays[one.on]?.push(event)
        break
      }
      case 'future': {
        const event = this.#event(nowS + 1_000_000)
        this.#hostile.add(event.id)
        this.relays[one.on]?.stored.push(event)
        this.relays[one.on]?.push(event)
        break
      }
      case 'close':
        for (const connection of this.relays[one.on]?.connections ?? []) {
          for (const sub of connection.subs.keys()) connection.send(['CLOSED', sub, 'error: because'])
          connection.subs.clear()
        }
        break
      case 'drop':
        this.relays[one.on]?.dropAll()
        break
      case 'garbage':
        for (const connection of this.relays[one.on]?.connections ?? []) connection.sendRaw('["EVENT",{"]')
        break
      case 'foreign_eose':
        for (const connection of this.relays[one.on]?.connections ?? []) connection.send(['EOSE', 'none of yours'])
        break
      case 'fail_next':
        this.#failNext++
        break
      case 'restart': {
        const { dir } = this.node
        await this.node.stop({ keep: true, kill: true })
        this.node = this.#startNode(dir)
        break
      }
      case 'wait':
        await this.clock.advance(one.seconds * 1000)
    }
  }

  /** Lets time pass until everything published was claimed. */
  async settle(): Promise<void> {
    this.#failNext = 0
    await vi.waitFor(
      async () => {
        await this.clock.advance(1000)
        expect(new Set(this.claims)).toEqual(this.expected)
      },
      { timeout: 15_000, interval: 5 },
    )
  }

  check(): void {
    expect(this.claims.length).toBe(this.expected.size)
    for (const id of this.claims) expect(this.#hostile.has(id)).toBe(false)
    for (const relay of this.relays) expect(cursorOf(this.node.store, relay.url, 'model') ?? 0).toBeLessThanOrEqual(this.clock.now())
  }

  async stop(): Promise<void> {
    await this.node.stop()
    rmSync(this.node.dir, { recursive: true, force: true })
  }
}

describe('two hostile relays', () => {
  it('cause one claim for each event, whatever happens in between', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
        const relays = [await ScriptedRelay.start(), await ScriptedRelay.start()]
        const world = new World(relays)
        try {
          for (const one of steps) await world.run(one)
          await world.settle()
          world.check()
        } finally {
          await world.stop()
          for (const relay of relays) await relay.stop()
        }
      }),
      { numRuns: 25, endOnFailure: true, interruptAfterTimeLimit: 40_000 },
    )
  })
})
