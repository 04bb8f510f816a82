/** The pipeline of managed agents against a node and sessions that are scripted: phases, failures, teardowns, restarts. */
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { PylonError } from '../../../src/base/errors.ts'
import type { Json } from '../../../src/base/json.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { ManagedAgents, type ManagedOrder } from '../../../src/customer/agents/managed-agents.ts'
import { managedViews } from '../../../src/customer/agents/view.ts'
import type { TenantAnswer, TenantOrder } from '../../../src/customer/machines/tenant.ts'
import type { ControlStatus } from '../../../src/nostr/control/envelopes.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { identify } from '../../../src/nostr/nips/nip01.ts'
import { helloTemplate } from '../../../src/session/hello.ts'
import type { Created, CreateOrder } from '../../../src/session/types.ts'
import { stepsOfManagedAgent } from '../../../src/store/buying/managed-agents.ts'
import { Store } from '../../../src/store/store.ts'
import { testScope } from '../../support/scope.ts'
import { tempDir } from '../../support/temp.ts'

const OWN = '01'.repeat(32)
const OTHER = createSigner(new Uint8Array(32).fill(9)).pubkey
const bot = createSigner(new Uint8Array(32).fill(7))
const RUNTIME = 'local-0123456789abcdef'
const never = new AbortController().signal

type Answer = (order: TenantOrder, emit: (status: ControlStatus) => void) => Promise<Json | undefined> | Json | undefined

class World {
  readonly clock = new ManualClock()
  readonly path = join(tempDir(), 'pylon.db')
  store = Store.open(this.path)
  scope = testScope(this.clock)
  readonly sent: string[] = []
  readonly created: CreateOrder[] = []
  /** What the node answers to each command; its payload. */
  readonly answers: Record<string, Answer> = {}
  botPubkey: string | undefined = bot.pubkey
  onCreate: () => Promise<void> = async () => undefined
  agents = this.#agents()

  constructor() {
    onTestFinished(() => this.stop())
  }

  async stop(): Promise<void> {
    await this.scope.close(1000)
    this.store.close()
  }

  /** As a new process does over the same database. */
  async restart(): Promise<void> {
    await this.stop()
    this.store = Store.open(this.path)
    this.scope = testScope(this.clock)
    this.agents = this.#agents()
    this.agents.start()
  }

  order(over: Partial<ManagedOrder> = {}, provider: 'local' | 'workers' | 'fly' = 'local'): ManagedOrder {
    const command = { provider, protocol: 'pi', relay_urls: ['wss://relay.test'] } as const
    return { name: 'helper', server: OWN, command: { ...command, relay_urls: [...command.relay_urls] }, keep: false, ...over }
  }

  phases(id: string): string[] {
    return [...new Set(stepsOfManagedAgent(this.store, id).map(({ phase }) => phase))]
  }

  async make(over: Partial<ManagedOrder> = {}, provider: 'local' | 'workers' | 'fly' = 'local', key = 'k') {
    const { id } = await this.agents.order(this.order(over, provider), key)
    return await this.agents.ready(id, never)
  }

  #agents(): ManagedAgents {
    return new ManagedAgents({
      ...{ scope: this.scope, store: this.store, clock: this.clock, logger: silentLogger, ownPubkey: () => OWN },
      tenant: { send: (order, emit) => this.#send(order, emit) },
      owner: { sessions: { create: (order) => this.#create(order) }, listen: () => undefined },
    })
  }

  async #send(order: TenantOrder, emit: (status: ControlStatus) => void): Promise<TenantAnswer> {
    const { command } = order
    this.sent.push(command.command)
    const answer = this.answers[command.command]
    const work = Promise.resolve(answer?.(order, emit))
    const cut = new Promise<never>((_resolve, reject) => {
      // As the tenant does, also when the node ends.
      for (const signal of [order.signal, this.scope.closing]) {
        if (signal?.aborted === true) reject(signal.reason)
        signal?.addEventListener('abort', () => reject(signal.reason))
      }
    })
    const payload = await Promise.race([work, cut])
    const key = this.botPubkey === undefined ? {} : { bot_pubkey: this.botPubkey }
    const runtime = { runtime_id: RUNTIME, provider: 'local', lifecycle_phase: 'ready', ...key } as const
    const told = payload === undefined ? {} : { payload }
    return { runtime: { ...runtime, protocol_compatibility: ['pi'] }, ...told, requestId: 'r', paidMsats: 0n as never, via: 'straight' }
  }

  async #create(order: CreateOrder): Promise<Created> {
    this.created.push(order)
    await this.onCreate()
    const rumor = identify(OWN, { kind: 444, created_at: 1, tags: [], content: 'welcome' })
    const group = {
      ...{ id: 'aa'.repeat(32), mlsId: 'bb', name: order.name, members: [...order.peers], admins: [], relays: order.relays },
      ...{ epoch: 1, state: 'active' as const, createdAt: 0 },
    }
    return { group, welcomes: [{ peer: order.peers[0] ?? '', wrapperEventId: 'cc'.repeat(32), rumor }] }
  }
}

const told = (startup_phase: string, message = startup_phase): ControlStatus => ({
  ...{ phase: 'provisioning', runtime_id: RUNTIME, provider: 'local', message, progress: { startup_phase } },
})

test('from asked for to ready, with every phase and its time; a second call under the key is the same agent', async () => {
  const world = new World()
  world.answers['provision'] = async (_order, emit) => {
    for (const phase of ['provisioning_vm', 'booting_guest', 'waiting_for_service_ready', 'waiting_for_keypackage_publish'])
      emit(told(phase))
    return { operation: 'provision' }
  }
  const row = await world.make()
  expect(row).toMatchObject({
    phase: 'ready',
    runtimeId: RUNTIME,
    botPubkey: bot.pubkey,
    groupId: 'aa'.repeat(32),
    cleanup: 'due',
    welcomes: [],
  })
  expect(world.phases(row.id)).toEqual([
    ...['requested', 'provisioning', 'booting', 'waiting_for_service_ready', 'waiting_for_keypackage_publish', 'ready'],
  ])
  expect(world.created).toMatchObject([{ peers: [bot.pubkey], name: 'helper', relays: ['wss://relay.test'], timeoutMs: 120_000 }])
  expect(world.sent).toEqual(['provision', 'process_welcome'])
  const token = (row.command as { session_token: string }).session_token
  expect(token).toMatch(/^[0-9a-f]{64}$/)
  expect((await world.make()).id).toBe(row.id)
  expect(world.sent).toHaveLength(2)
  await expect(world.agents.order(world.order({ keep: true }), 'k')).rejects.toMatchObject({ code: 'idempotency_conflict' })
  await expect(world.agents.order(world.order(), 'k2')).rejects.toMatchObject({ code: 'agent_exists' })
  await expect(world.agents.order(world.order({ name: 'No Name' }), 'k3')).rejects.toMatchObject({ code: 'agent_name_invalid' })
})

test('its owner ends it: the runtime is torn down and the name is free', async () => {
  const world = new World()
  await world.make()
  expect((await world.agents.end('helper', never)).phase).toBe('ended')
  expect(world.sent.at(-1)).toBe('teardown')
  expect(world.agents.find('helper')).toBeUndefined()
  await expect(world.agents.end('helper', never)).rejects.toMatchObject({ code: 'agent_not_found' })
  expect((await world.make({}, 'local', 'again')).phase).toBe('ready')
})

test('what is not provisioned is torn down, and the words name what to do', async () => {
  const world = new World()
  const words = 'npub1 says provision_failed: the spawner at http://127.0.0.1:1 does not answer'
  world.answers['provision'] = (_order, emit) => {
    emit(told('provisioning_vm'))
    throw new PylonError('control_refused', words)
  }
  world.answers['teardown'] = () => {
    throw new PylonError('runtime_not_found', 'there is no such runtime')
  }
  const failure = await world.make({}, 'fly').catch((error: unknown) => error)
  expect(failure).toMatchObject({ code: 'control_refused' })
  expect((failure as Error).message).toContain('http://127.0.0.1:1')
  expect((failure as Error).message).toContain('runtimes.fly.app_name')
  expect(world.agents.get('helper')).toMatchObject({ phase: 'failed', cleanup: 'done' })
  expect(world.sent).toEqual(['provision', 'teardown'])
})

test('an agent process that did not come up is told as such, and is listed for an hour', async () => {
  const world = new World()
  world.answers['provision'] = () => {
    const detail = 'runtime_failed: the agent exited with 3 before it was ready; it wrote: no model'
    throw new PylonError(
      'control_refused',
      `npub15xtabcdefghi says provision_failed: ${detail}; try the command by hand: pylon runtime run`,
    )
  }
  world.answers['teardown'] = () => ({ teardown: 'deleted' })
  const failure = (await world.make().catch((error: unknown) => error)) as PylonError
  expect(failure.message).toMatch(/^this node: .*it wrote: no model; try the command by hand: pylon runtime run$/)
  const listed = (laterMs: number) => managedViews(world.store, OWN, world.clock.now() + laterMs).map(({ name }) => name)
  expect(listed(60_000)).toEqual(['helper'])
  expect(listed(2 * 3600_000)).toEqual([])
  expect((await world.agents.end('helper', never)).phase).toBe('ended')
})

test('another node may have made something that no status named: it is asked', async () => {
  const world = new World()
  world.answers['provision'] = () => Promise.reject(new PylonError('timeout', 'no answer'))
  await world.make({ server: OTHER }).catch(() => undefined)
  expect(world.sent).toEqual(['provision', 'get_request', 'teardown'])
})

test('a teardown that fails is said with the command that does it, and tried again until it is done', async () => {
  const world = new World()
  world.onCreate = () => Promise.reject(new PylonError('session_no_key_package', 'there is no key package'))
  let tries = 0
  world.answers['teardown'] = () => {
    if (++tries < 3) throw new PylonError('runtime_unreachable', 'the substrate is away')
    return { teardown: 'deleted' }
  }
  const failure = (await world.make().catch((error: unknown) => error)) as PylonError
  expect(failure.code).toBe('session_no_key_package')
  expect(failure.message).toContain(`pylon runtime teardown ${RUNTIME}`)
  expect(failure.message).toContain('the substrate is away')
  await expect
    .poll(async () => {
      await world.clock.advance(300_000)
      return world.agents.get('helper').cleanup
    })
    .toBe('done')
  expect(tries).toBe(3)
})

test('with keep a runtime that runs is left, and the way back is told', async () => {
  const world = new World()
  world.onCreate = () => Promise.reject(new PylonError('session_no_key_package', 'there is no key package'))
  const failure = (await world.make({ keep: true, server: OTHER }).catch((error: unknown) => error)) as PylonError
  expect(failure.message).toMatch(
    new RegExp(`was kept: pylon runtime get ${RUNTIME} --server npub1\\w+; to end it: pylon agent delete helper`),
  )
  expect(world.sent).not.toContain('teardown')
  await world.agents.end('helper', never)
  expect(world.sent).toContain('teardown')
})

test('workers must take the welcome, others may', async () => {
  const world = new World()
  world.answers['process_welcome'] = () => Promise.reject(new PylonError('runtime_failed', 'the broker refuses it'))
  expect((await world.make({ name: 'a' }, 'local', '1')).phase).toBe('ready')
  await expect(world.make({ name: 'b' }, 'workers', '2')).rejects.toMatchObject({ code: 'runtime_failed' })
  world.sent.length = 0
  expect((await world.make({ name: 'c' }, 'fly', '3')).phase).toBe('ready')
  expect(world.sent).toEqual(['provision'])
})

test('the key comes by hello with a proof; without one, by another token or for another runtime it is not believed', async () => {
  const world = new World()
  world.botPubkey = undefined
  const { id } = await world.agents.order(world.order(), 'k')
  await expect.poll(() => world.agents.get('helper').runtime).not.toBeNull()
  const { command } = world.agents.get('helper')
  const token = (command as { session_token: string }).session_token
  const hello = (over: { token?: string; runtimeId?: string; signer?: typeof bot }) => {
    const { signer = bot } = over
    const from = { botPubkey: signer.pubkey, runtimeId: RUNTIME, token, owner: OWN, version: '1', nowS: 1, ...over }
    return world.agents.onRumor(identify(signer.pubkey, helloTemplate(from)))
  }
  await hello({ token: '00'.repeat(32) })
  await hello({ runtimeId: 'local-ffffffffffffffff' })
  expect(world.agents.get('helper').botPubkey).toBeNull()
  await hello({})
  expect(await world.agents.ready(id, never)).toMatchObject({ phase: 'ready', botPubkey: bot.pubkey })
  await hello({ signer: createSigner(new Uint8Array(32).fill(8)) })
  expect(world.agents.get('helper').botPubkey).toBe(bot.pubkey)
})

test('no hello in time is a failure that names relays and log', async () => {
  const world = new World()
  world.botPubkey = undefined
  const { id } = await world.agents.order(world.order(), 'k')
  const failed = world.agents.ready(id, never).catch((error: unknown) => error)
  await expect.poll(() => world.agents.get('helper').runtime).not.toBeNull()
  await expect
    .poll(async () => {
      await world.clock.advance(60_000)
      return world.agents.get('helper').phase
    })
    .toBe('failed')
  const error = (await failed) as PylonError
  expect(error.message).toContain('wss://relay.test')
  expect(error.message).toContain(`pylon runtime logs ${RUNTIME}`)
})

test('ended while it comes: what was begun is given up and torn down', async () => {
  const world = new World()
  world.answers['provision'] = (_order, emit) => {
    emit(told('booting_guest'))
    return new Promise(() => undefined)
  }
  const { id } = await world.agents.order(world.order(), 'k')
  const failed = world.agents.ready(id, never).catch((error: unknown) => error)
  await expect.poll(() => world.agents.get('helper').phase).toBe('booting')
  await world.agents.end('helper', never)
  expect(world.sent).toEqual(['provision', 'teardown'])
  expect(await failed).toMatchObject({ code: 'conflict' })
})

test.each(['provision', 'process_welcome'])('a node that dies within %s goes on after its start, under the same keys', async (where) => {
  const world = new World()
  const keys: string[] = []
  world.answers[where] = ({ idempotencyKey }) => {
    keys.push(idempotencyKey)
    return keys.length === 1 ? new Promise(() => undefined) : null
  }
  const { id } = await world.agents.order(world.order(), 'k')
  await expect.poll(() => keys).toHaveLength(1)
  await world.restart()
  expect((await world.agents.ready(id, never)).phase).toBe('ready')
  expect(new Set(keys).size).toBe(1)
  expect(new Set(world.created.map(({ key }) => key)).size).toBe(1)
})
