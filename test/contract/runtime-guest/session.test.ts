/** The guest of a session as a process of its own: through the door of a local runtime, and by its environment where it has a network. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { RelayDoors } from '../../../src/provider/machines/doors.ts'
import { decodeRuntimeSpec } from '../../../src/runtime/contract/spec.ts'
import type { LocalAdapter } from '../../../src/runtime/local/local-adapter.ts'
import { getRuntime, insertRuntime, type RuntimeRow } from '../../../src/store/selling/runtimes.ts'
import { killAll } from '../../support/kill.ts'
import { localRuntimes, newRuntimeId, scriptedAgent } from '../../support/local-runtimes.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { SessionOwner, textOf } from '../../support/session-owner.ts'
import { tempDir } from '../../support/temp.ts'
import { fullGuest, logOf, patience, start, statusOf } from './contract.ts'

const calm = new AbortController().signal

let sandbox: TestSandbox
let owner: SessionOwner

beforeAll(async () => {
  sandbox = await startSandbox()
  owner = new SessionOwner(sandbox.relayUrl)
})

afterAll(async () => {
  await owner.node.stop()
  await sandbox.stop()
})

/** A runtime of the local substrate with a door, as the machines of a node make it. */
async function runtime(
  options: { protocol?: 'acp' | 'pi'; local?: { adapter: LocalAdapter; dir: string }; volume?: string; args?: string[] } = {},
) {
  const { protocol = 'acp', volume = 'v-1', local = localRuntimes() } = options
  const { adapter, dir } = local
  const id = newRuntimeId()
  const { store, nostr } = owner.node
  const spec = decodeRuntimeSpec({
    identity: { runtime_id: id, instance_name: id },
    entry_command: scriptedAgent(protocol, ...(options.args ?? [])),
    mounts: [{ kind: 'persistent_volume', guest_path: '/data', source: volume, mode: 'read_write', required: true }],
    policies: { restart_policy: 'on_failure', retention_policy: 'keep_until_stopped' },
  })
  const session = { token: owner.token, relays: [sandbox.relayUrl] }
  const row = { id, provider: 'local', ownerPubkey: owner.pubkey, runtimeClass: 'c', protocol, region: null, botPubkey: null } as const
  const kept = {
    spec: JSON.parse(JSON.stringify(spec)),
    keepVolume: true,
    expiresAt: null,
    input: { session },
    reason: 'test',
    at: Date.now(),
  }
  await store.write(insertRuntime({ ...row, ...kept }))
  const doors = new RelayDoors({ scope: testScope(), store, logger: silentLogger, nostr, dir: join(tempDir(), 'doors') })
  const door = await doors.open(getRuntime(store, id) as RuntimeRow)
  const { handle } = await adapter.provision(
    { runtimeId: id, ownerPubkey: owner.pubkey, spec, protocol, session: { ...session, doorSocket: door?.socketPath ?? '' } },
    calm,
  )
  onTestFinished(async () => void (await adapter.teardown(handle, { keepVolume: false })))
  const ready = async () => {
    await vi.waitFor(
      async () => {
        const { state, message } = await adapter.readiness(handle, calm)
        if (state !== 'ready') throw new Error(`${state}: ${message}: ${await adapter.logs(handle, { tailBytes: 4000 })}`)
      },
      { timeout: 30_000 },
    )
  }
  return { id, adapter, dir, handle, doors, ready }
}

/** SIGKILL to all processes of a runtime at once. @returns how many there were */
async function killGuest(dir: string): Promise<number> {
  const { mark } = JSON.parse(readFileSync(dir, 'utf8')) as { mark: string }
  const pids = readdirSync('/proc').filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(mark)
    } catch {
      // Not ours, or gone.
      return false
    }
  })
  killAll(pids.map(Number))
  return pids.length
}

describe.each(['acp', 'pi'] as const)('an agent over %s in a local runtime without a network', (protocol) => {
  test('is talked to by its owner, encrypted, through its door', async () => {
    const { id, adapter, handle, ready } = await runtime({ protocol })
    await ready()
    const bot = await owner.hello(id)
    const { status } = await adapter.readiness(handle, calm)
    expect(status?.details).toMatchObject({ bot_pubkey: bot, agent_kind: protocol, service_probe_satisfied: true })
    expect(getRuntime(owner.node.store, id)?.botPubkey).toBe(bot)

    const talk = await owner.meet(id)
    const answer = await talk.ask('say hello there')
    expect(answer.at(-1)).toEqual({ type: 'done' })
    expect(textOf(answer)).toBe('hello there')
    expect('hello there').toContain(answer.flatMap((body) => (body.type === 'text_delta' ? [body.delta] : [])).join(''))
    expect(talk.heard()[0]?.body).toMatchObject({ type: 'capability' })

    const tools = await talk.ask({ type: 'prompt', message: 'tool' })
    expect(tools.map(({ type }) => type)).toEqual(expect.arrayContaining(['tool_call', 'tool_call_update', 'assistant_text', 'done']))
    expect(talk.heard().at(-1)?.sessionId).toBe('acp-0123456789abcdef')
    expect(await talk.ask('dance')).toEqual([{ type: 'error', message: expect.stringContaining('cannot dance') }])

    const slow = await talk.say('slow')
    await vi.waitFor(async () => {
      await talk.say({ type: 'abort' })
      expect(talk.heard(slow).at(-1)?.body).toEqual({ type: 'done' })
    }, patience)
    expect(textOf(await talk.ask('recall'))).toContain('say hello there|tool')
    // Nobody else reaches it: its network is none.
    expect(textOf(await talk.ask('env NOSTR_SECRET_KEY'))).toBe('unset')
  })

  test('goes on after a kill in mid-answer, with the same key, and answers once', async () => {
    const { id, adapter, dir, handle, ready } = await runtime({ protocol })
    const talk = await owner.meet(id)
    expect(textOf(await talk.ask('say one'))).toBe('one')
    const slow = await talk.say('slow begun')
    const next = await talk.say('say two')
    const begins = (times: number) =>
      vi.waitFor(
        () => {
          const streamed = talk.heard(slow).flatMap(({ body }) => (body.type === 'text_delta' ? [body.delta] : []))
          expect(streamed.join('').match(/begun/g)).toHaveLength(times)
        },
        { timeout: 30_000, interval: 20 },
      )
    await begins(1)
    await adapter.recover(handle, calm)
    await begins(2)
    expect(await killGuest(join(dir, id, 'runtime.json'))).toBeGreaterThan(1)
    await adapter.recover(handle, calm)
    await begins(3)
    await talk.say({ type: 'abort' })
    await vi.waitFor(() => expect(talk.heard(slow).filter(({ body }) => body.type === 'done')).toHaveLength(2), patience)
    const bodies = talk.heard(slow).map(({ body }) => body)
    expect(bodies.filter(({ type }) => type === 'error')).toEqual([])
    expect(bodies.filter(({ type }) => type === 'assistant_text')).toEqual([{ type: 'assistant_text', text: 'two' }])
    expect(next).toBeGreaterThan(slow)
    await ready()
  })
})

test('a runtime that is made anew on the same volume has the same key, the same session and another hello', async () => {
  const local = localRuntimes()
  const { adapter } = local
  const first = await runtime({ local, volume: 'v-kept' })
  const talk = await owner.meet(first.id)
  expect(textOf(await talk.ask('say one'))).toBe('one')
  await adapter.teardown(first.handle, { keepVolume: true })
  const second = await runtime({ local, volume: 'v-kept' })
  expect(await owner.hello(second.id)).toBe(await owner.hello(first.id))
  expect(textOf(await talk.ask('say two'))).toBe('two')
})

test('a welcome that the host hands over is processed, also beside the one that comes by relay', async () => {
  const { id, adapter, handle, ready } = await runtime()
  await ready()
  const { group, welcomes } = await owner.create(await owner.hello(id))
  const [welcome] = welcomes
  const call = { groupId: group.id, wrapperEventIdHex: welcome?.wrapperEventId ?? '', welcomeEventJson: JSON.stringify(welcome?.rumor) }
  const payload = { processed: true, group_id: group.id, wrapper_event_id_hex: call.wrapperEventIdHex, processed_welcomes: 1 }
  expect(await adapter.processWelcome(handle, call)).toEqual(payload)
  expect(await adapter.processWelcome(handle, call)).toEqual(payload)
  expect(textOf(await owner.talk(group.id).ask('say hi'))).toBe('hi')
})

describe('a guest that its environment tells what to do', () => {
  const env = (dir: string, more: Record<string, string>) => ({
    STATE_DIR: dir,
    PYLON_RUNTIME_ID: `fly-${dir.slice(-6)}`,
    PYLON_SESSION_TOKEN: owner.token,
    PYLON_OWNER_PUBKEY: owner.pubkey,
    PIKA_RELAY_URLS: sandbox.relayUrl,
    ...more,
  })

  test('speaks to relays itself, keeps its key private, and hears nobody but its owner', async () => {
    const dir = tempDir()
    const of = env(dir, { PYLON_PROTOCOL: 'pi', PYLON_ENTRY_COMMAND: scriptedAgent('pi') })
    const guest = start([...fullGuest, '--session'], dir, of)
    const talk = await owner.meet(of.PYLON_RUNTIME_ID)
    expect(textOf(await talk.ask('say hi'))).toBe('hi')
    expect(textOf(await talk.ask('env PYLON_SESSION_TOKEN'))).toBe('unset')
    expect(statSync(join(dir, 'session/bot.key')).mode & 0o777).toBe(0o600)
    expect(statusOf(dir)).toMatchObject({ state: 'ready', details: { bot_pubkey: await owner.hello(of.PYLON_RUNTIME_ID) } })
    const stranger = new SessionOwner(sandbox.relayUrl)
    onTestFinished(() => stranger.node.stop())
    guest.child.kill('SIGTERM')
    expect(await guest.exit).toBe(0)
  })

  test('says which variable is missing', async () => {
    const dir = tempDir()
    const { PYLON_SESSION_TOKEN: _token, ...of } = env(dir, { PYLON_ENTRY_COMMAND: 'true' })
    expect(await start([...fullGuest, '--session'], dir, of).exit).toBe(2)
    expect(readFileSync(join(dir, 'result.json'), 'utf8')).toContain('PYLON_SESSION_TOKEN')
    expect(existsSync(join(dir, 'session'))).toBe(false)
    expect(logOf).toBeDefined()
  })
})
