/**
 * One conversation by one seed: an owner asks, an agent answers, while the network loses, repeats and delays, relays go away and
 * come back and forget a commit, keys are renewed, and either side is killed at some commit. Then the weather clears.
 */
import { hash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf } from '../../../src/base/errors.ts'
import { decodeState } from '../../../src/session/mls/group.ts'
import type { SessionMessage } from '../../../src/session/types.ts'
import { getGroup } from '../../../src/store/sessions/groups.ts'
import { seedEntropy } from '../entropy.ts'
import { tempRoot } from '../life.ts'
import { CALM, type Weather } from '../network.ts'
import { watchWebCrypto } from '../web-crypto.ts'
import { Peer, RELAY_URLS, RELAYS, type Running, World } from './world.ts'

export interface Outcome {
  /** What is wrong; empty for a good run. */
  readonly problems: readonly string[]
  readonly kills: number
  /** Prompts that were begun more than once. */
  readonly begunAgain: number
  readonly epoch: number
  /** Commits that relays took and forgot. */
  readonly forgotten: number
  /** Group events whose keys were looked at. */
  readonly opened: number
  readonly virtualMs: number
  readonly lines: readonly string[]
  /** Digest of all log lines. */
  readonly log: string
}

const STORM_MS = 120_000
const ASKING_MS = 90_000
const AFTERMATH_MS = 3 * 3600_000
const STEP_MS = 15_000
const PROMPTS = 6
/** Those of Marmot, deletions of old key packages, and the canaries by which any node hears whether its relays still speak. */
const KINDS = new Set([443, 445, 1059, 10_051, 30_443, 5, 20_911])

export async function converse(seed: number): Promise<Outcome> {
  const crypto = watchWebCrypto()
  const restoreEntropy = seedEntropy(seed)
  const dir = mkdtempSync(join(tempRoot(), 'pylon-sim-'))
  const world = new World(seed, dir, crypto)
  try {
    return await new Conversation(world).play()
  } finally {
    world.end()
    restoreEntropy()
    crypto.restore()
    rmSync(dir, { recursive: true, force: true })
  }
}

class Conversation {
  readonly #world: World
  readonly #owner: Peer
  readonly #agent: Peer
  readonly #prompts: string[]
  readonly #problems: string[] = []
  readonly #begun = new Map<string, number>()
  #groupId = ''
  #asked = 0
  #kills = 0
  #isStormOver = false

  constructor(world: World) {
    this.#world = world
    this.#prompts = Array.from({ length: PROMPTS }, (_, index) => `prompt ${index} of words that nobody else reads`)
    this.#owner = new Peer(world, { name: 'owner', key: 1, mayInvite: () => false, begin: () => undefined })
    this.#agent = new Peer(world, {
      ...{ name: 'agent', key: 2 },
      mayInvite: (pubkey) => pubkey === this.#owner.pubkey,
      begin: (running) => this.#listen(running),
    })
  }

  async play(): Promise<Outcome> {
    const world = this.#world
    const startedAt = world.clock.now()
    for (const peer of world.peers) peer.start()
    this.#storm()
    void this.#ask().catch((error: unknown) => this.#problems.push(`the owner gave up: ${messageOf(error)}`))
    await world.clock.run(STORM_MS)
    this.#calm()
    for (let waitedMs = 0; waitedMs < AFTERMATH_MS && !this.#isDone(); waitedMs += STEP_MS) await world.clock.run(STEP_MS)
    const auditing = world.wire.audit()
    const { problems, opened } = await auditing
    this.#problems.push(...world.failures, ...problems, ...this.#faults())
    return {
      problems: this.#problems,
      kills: this.#kills,
      begunAgain: [...this.#begun.values()].filter((times) => times > 1).length,
      epoch: this.#row(this.#owner)?.epoch ?? 0,
      forgotten: world.forgotten,
      opened,
      virtualMs: world.clock.now() - startedAt,
      lines: world.log,
      log: hash('sha256', world.log.join('')),
    }
  }

  /** The agent: says some words as it thinks, and ends with the answer. */
  #listen({ sessions, scope }: Running): void {
    sessions.onMessage(async (message) => {
      const times = (this.#begun.get(message.content) ?? 0) + 1
      this.#begun.set(message.content, times)
      for (let piece = 0; piece < 2; piece++) {
        await scope.sleep(this.#world.below(4000))
        await sessions.send(message.groupId, { content: `piece ${piece}: ${message.content}` }, `${message.id} ${piece}`)
      }
      await sessions.answer(message, [{ content: `answer to ${message.content}` }], `answer ${message.id}`)
    })
  }

  /** The owner: makes the session and asks, one thing after the other, and again under the same key when it does not know whether it did. */
  async #ask(): Promise<void> {
    const { clock } = this.#world
    const relays = RELAY_URLS
    const order = { key: 'one', peers: [this.#agent.pubkey], name: 'Agent Chat', relays, timeoutMs: 20_000 }
    this.#groupId = (await this.#insist((sessions) => sessions.create(order))).group.id
    for (const [index, content] of this.#prompts.entries()) {
      await clock.sleep(this.#world.below((2 * ASKING_MS) / PROMPTS))
      const isTwice = this.#world.below(4) === 0
      for (let times = isTwice ? 2 : 1; times > 0; times--)
        await this.#insist((sessions) => sessions.send(this.#groupId, { content }, `prompt ${index}`))
      this.#asked++
    }
  }

  async #insist<T>(work: (sessions: Peer['sessions']) => Promise<T>): Promise<T> {
    for (let tries = 0; ; tries++) {
      try {
        return await this.#owner.ask(work)
      } catch (error) {
        if (tries > 500) throw error
        await this.#world.clock.sleep(3000)
      }
    }
  }

  #storm(): void {
    const world = this.#world
    const { network } = world
    const some = (most: number) => world.random.float() * most
    network.weather = {
      ...{ minMs: 5, maxMs: 50 + world.below(3000), requestLost: 0, answerLost: 0, answerLate: 0, requestTwice: 0 },
      ...{ frameLost: some(0.15), frameTwice: some(0.3) },
    } satisfies Weather
    for (const origin of RELAYS) {
      this.#sometime(() => network.cut(origin))
      this.#sometime(() => network.silence(origin))
      this.#sometime(
        () => network.down(origin),
        () => network.up(origin),
      )
    }
    for (const peer of world.peers) {
      for (let kills = 1 + world.below(4); kills > 0; kills--) this.#sometime(() => this.#killSoon(peer))
      for (let updates = world.below(3); updates > 0; updates--)
        this.#sometime(() => this.#change(peer, (sessions) => sessions.selfUpdate(this.#groupId)))
    }
    if (world.below(2) === 0) this.#sometime(() => this.#change(this.#owner, (sessions) => sessions.rename(this.#groupId, 'Another name')))
    if (world.below(2) === 0) this.#sometime(() => world.commitsToForget++)
  }

  #sometime(begin: () => void, end: () => void = () => undefined): void {
    const { clock } = this.#world
    clock.after(this.#world.below(ASKING_MS), () => {
      if (this.#isStormOver) return
      begin()
      clock.after(this.#world.below(40_000), end)
    })
  }

  #change(peer: Peer, work: (sessions: Peer['sessions']) => Promise<void>): void {
    // Whether it comes about is for the weather to say.
    if (peer.isUp) peer.ask(work).catch(() => undefined)
  }

  #killSoon(peer: Peer): void {
    const world = this.#world
    const when = world.below(2) === 0 ? 'before' : 'after'
    const onDead = () => {
      this.#kills++
      world.clock.after(world.below(20_000), () => {
        if (!peer.isUp) peer.start()
      })
    }
    if (peer.isUp) peer.killAt({ commits: 1 + world.below(20), when, onDead })
  }

  #calm(): void {
    this.#isStormOver = true
    const { network, peers } = this.#world
    network.weather = CALM
    for (const origin of RELAYS) network.up(origin)
    for (const peer of peers) {
      peer.killAt({ commits: Number.POSITIVE_INFINITY, when: 'before', onDead: () => undefined })
      if (!peer.isUp) peer.start()
    }
  }

  #row(peer: Peer) {
    return getGroup(peer.store, peer.pubkey, this.#groupId)
  }

  #said(peer: Peer): SessionMessage[] {
    return peer.sessions.messages(this.#groupId, { limit: 1000 })
  }

  #isDone(): boolean {
    if (this.#asked < PROMPTS || this.#world.peers.some(({ isUp }) => !isUp)) return false
    const [owner, agent] = [this.#row(this.#owner), this.#row(this.#agent)]
    if (owner?.epoch !== agent?.epoch || owner?.pending !== null || agent?.pending !== null) return false
    return this.#said(this.#owner).filter(({ content }) => content.startsWith('answer')).length >= PROMPTS
  }

  #faults(): string[] {
    const problems: string[] = []
    const same = (what: string, got: readonly unknown[], wanted: readonly unknown[]) => {
      if (JSON.stringify(got) !== JSON.stringify(wanted)) problems.push(`${what}: ${JSON.stringify(got)}`)
    }
    const all = [this.#owner, this.#agent]
    for (const peer of all) {
      const said = this.#said(peer).map(({ content }) => content)
      const of = (start: string) => said.filter((content) => content.startsWith(start))
      same(`prompts at the ${peer.name}`, of('prompt'), this.#prompts)
      same(
        `pieces at the ${peer.name}`,
        of('piece'),
        this.#prompts.flatMap((prompt) => [`piece 0: ${prompt}`, `piece 1: ${prompt}`]),
      )
      same(
        `answers at the ${peer.name}`,
        of('answer'),
        this.#prompts.map((prompt) => `answer to ${prompt}`),
      )
    }
    const rows = all.map((peer) => this.#row(peer))
    same(
      'states',
      rows.map((row) => row?.state),
      ['active', 'active'],
    )
    const trees = rows.flatMap((row) =>
      row === undefined ? [] : [Buffer.from(decodeState(row.mlsState).keySchedule.epochAuthenticator).toString('hex')],
    )
    if (trees[0] !== trees[1]) problems.push(`the owner is in epoch ${rows[0]?.epoch}, the agent in ${rows[1]?.epoch}, of different trees`)
    const { wire } = this.#world
    same(
      'kinds on the wire',
      [...wire.kinds].filter((kind) => !KINDS.has(kind)),
      [],
    )
    if (wire.holds('words that nobody') || wire.holds('Agent Chat')) problems.push('words are on the wire')
    return problems
  }
}
