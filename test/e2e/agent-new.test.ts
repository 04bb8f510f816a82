/** `pylon agent new` with every provider and protocol: over recording servers, with an agent that the test starts by what they were told. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { agentsRoutes } from '../../src/control/contract/agents.ts'
import { managedRoutes } from '../../src/control/contract/managed.ts'
import { nodeRoutes } from '../../src/control/contract/node.ts'
import type { RecordingServer } from '../support/recording-http.ts'
import { BROKER_TOKEN, brokerServer, FLY_APP, FLY_TOKEN, flyServer, spawnerServer } from '../support/remote-substrates.ts'
import { Rig } from '../support/rig.ts'
import { type Bot, startBot } from '../support/session-bot.ts'
import { tempDir } from '../support/temp.ts'
import { testSigner } from '../support/test-signer.ts'

type Fields = Record<string, unknown>

interface Told {
  readonly env: Record<string, string>
  readonly id: string
}

interface Substrate {
  readonly server: RecordingServer
  readonly settings: Record<string, string>
  /** What the newest machine was told, once it is made. */
  told(): Told | undefined
  left(): number
}

function tokenFile(rig: Rig, name: string, token: string): string {
  const path = join(rig.dir, name)
  writeFileSync(path, token, { mode: 0o600 })
  return path
}

const SUBSTRATES = {
  async fly(rig: Rig): Promise<Substrate> {
    const server = await flyServer()
    return {
      server,
      settings: {
        'runtimes.fly.api_base_url': server.url,
        'runtimes.fly.token_file': tokenFile(rig, 'fly', FLY_TOKEN),
        'runtimes.fly.image': 'registry.fly.io/pika-bot:latest',
        'runtimes.fly.app_name': FLY_APP,
      },
      told: () => {
        const machine = [...server.machines.values()].at(-1)
        const env = (machine?.['config'] as { env?: Record<string, string> } | undefined)?.env
        return env === undefined ? undefined : { env, id: String(machine?.['id']) }
      },
      left: () => server.machines.size + server.volumes.size,
    }
  },
  async microvm(): Promise<Substrate> {
    const server = await spawnerServer(1)
    return {
      server,
      settings: { 'runtimes.microvm.spawner_urls': `["${server.url}"]` },
      told: () => {
        const [id, vm] = [...server.vms].at(-1) ?? []
        const env = (vm?.['guest_autostart'] as { env?: Record<string, string> } | undefined)?.env
        return env === undefined || id === undefined ? undefined : { env, id }
      },
      left: () => server.vms.size,
    }
  },
  async workers(rig: Rig): Promise<Substrate> {
    const server = await brokerServer(true, (nth) => testSigner(40 + nth).pubkey)
    return {
      server,
      settings: {
        'runtimes.workers.token_file': tokenFile(rig, 'broker', BROKER_TOKEN),
        'runtimes.workers.base_url': server.url,
      },
      told: () => {
        const [id, agent] = [...server.agents].at(-1) ?? []
        if (id === undefined || agent === undefined) return undefined
        const { relay_urls, owner_pubkey, session_token } = agent as Fields & { relay_urls: string[] }
        const env = {
          PIKA_RELAY_URLS: relay_urls.join(','),
          PYLON_OWNER_PUBKEY: String(owner_pubkey),
          PYLON_SESSION_TOKEN: String(session_token),
        }
        return { env: { ...env, PYLON_RUNTIME_ID: id }, id }
      },
      left: () => server.agents.size,
    }
  },
}
type Provider = keyof typeof SUBSTRATES

async function started(provider: Provider): Promise<{ rig: Rig; substrate: Substrate; bots: Bot[] }> {
  const rig = new Rig()
  const bots: Bot[] = []
  onTestFinished(async () => {
    for (const bot of bots) await bot.stop()
    await rig[Symbol.asyncDispose]()
  })
  const substrate = await SUBSTRATES[provider](rig)
  await rig.ok('start', '--sandbox')
  for (const [key, value] of Object.entries(substrate.settings)) await rig.ok('config', 'set', key, value, '--sandbox')
  return { rig, substrate, bots }
}

/** What runs in the machine that is made next. */
async function inhabit(substrate: Substrate, bots: Bot[], key: number, protocol: 'pi' | 'acp') {
  const before = substrate.told()?.id
  await expect.poll(() => substrate.told()?.id, { timeout: 30_000 }).not.toBe(before)
  const { env } = substrate.told() as Told
  const dir = join(tempDir(), 'bot')
  mkdirSync(dir)
  const hello = { runtimeId: env['PYLON_RUNTIME_ID'] ?? '', token: env['PYLON_SESSION_TOKEN'] ?? '' }
  const relays = (env['PIKA_RELAY_URLS'] ?? '').split(',')
  const bot = startBot({ dir, key, relays, owner: env['PYLON_OWNER_PUBKEY'] ?? '', protocol, hello })
  bots.push(bot)
  return bot
}

/** All that a relay is sent from now on, by a client that shares no code with us. */
async function eavesdrop(rig: Rig) {
  const { sandbox } = await rig.call(nodeRoutes.status, {})
  const socket = new WebSocket(sandbox?.relay_url ?? '')
  const heard: { kind: number }[] = []
  const isOpen = new Promise((resolve) => socket.addEventListener('open', resolve))
  socket.addEventListener('message', ({ data }) => {
    const [type, , event] = JSON.parse(String(data)) as [string, string, { kind: number }]
    if (type === 'EVENT') heard.push(event)
  })
  await isOpen
  socket.send(JSON.stringify(['REQ', 'all', { since: Math.floor(Date.now() / 1000) - 3 * 86_400, limit: 0 }]))
  onTestFinished(() => socket.close())
  return heard
}

/** Of the session, of the control plane, and of what keys say of themselves. */
const SESSION_KINDS = [443, 30_443, 10_051, 1059, 445]
const CONTROL_KINDS = [24_910, 24_911, 24_912, 24_913]
const OWN_KINDS = [0, 5, 10_002, 10_050, 11_998, 20_911, 31_990]

test.each(['fly', 'microvm', 'workers'] as const)(
  '%s: pi and acp, from the command to an answer, and nothing is left',
  async (provider) => {
    const { rig, substrate, bots } = await started(provider)
    const wire = await eavesdrop(rig)
    const secrets: string[] = ['hello there', 'looked']
    for (const [i, protocol] of (['pi', 'acp'] as const).entries()) {
      const args = ['agent', 'new', '--provider', provider, '--protocol', protocol, '--command', 'agent', '--name', `bot-${protocol}`]
      const [run, bot] = await Promise.all([
        rig.run(args, { input: 'say hello there\ntool\n', timeoutMs: 120_000 }),
        inhabit(substrate, bots, 40 + i, protocol),
      ])
      expect(run.stderr).toMatch(/requested.*\n(?:.*\n)*.*waiting_for_keypackage_publish.*\n(?:.*\n)*.*ready/)
      expect(run.stdout).toBe('hello there\n  [tool] look {"path":"a"}\n  [tool] completed\nlooked\n')
      expect(run.code).toBe(0)
      expect(bot.prompts).toEqual(['say hello there', 'tool'])
      expect(substrate.left()).toBe(0)
      secrets.push(bot.secretHex)
      await bot.stop()
      bots.pop()
    }
    const { agents } = await rig.call(managedRoutes.listManaged, {})
    expect(agents).toEqual([])
    const kinds = new Set(wire.map(({ kind }) => kind))
    expect([...kinds].filter((kind) => ![...SESSION_KINDS, ...CONTROL_KINDS, ...OWN_KINDS].includes(kind))).toEqual([])
    for (const kind of [30_443, 10_051, 1059, 445]) expect(kinds).toContain(kind)
    const text = JSON.stringify(wire)
    for (const secret of secrets) expect(text).not.toContain(secret)
    const handed = substrate.server.calls().filter((call) => call.endsWith('/runtime/process-welcome'))
    expect(handed).toHaveLength(provider === 'workers' ? 2 : 0)
  },
)

test('with --json it is left running, for chat, list and show; delete ends it', async () => {
  const { rig, substrate, bots } = await started('microvm')
  const args = ['agent', 'new', '--provider', 'microvm', '--command', 'agent', '--name', 'helper', '--cpu', '1', '--memory-mb', '512']
  const [made] = await Promise.all([
    rig.run([...args, '--ttl-seconds', '600', '--json'], { timeoutMs: 120_000 }),
    inhabit(substrate, bots, 45, 'pi'),
  ])
  expect(made.json()).toMatchObject({
    ...{ provider: 'microvm', protocol: 'pi', runtime_id: expect.stringMatching(/^microvm-/), runtime: { lifecycle_phase: 'ready' } },
    ...{ payload: { operation: 'provision' }, agent: { name: 'helper', phase: 'ready', own_node: true } },
  })
  expect(substrate.server.requests.find(({ path, method }) => path === '/vms' && method === 'POST')?.body).toMatchObject({
    cpu: 1,
    memory_mb: 512,
    ttl_seconds: 600,
  })

  const said = await rig.run(['agent', 'chat', 'helper', '-', '--idempotency-key', 'once'], { input: 'say all is well\n' })
  expect(said).toMatchObject({ code: 0, stdout: 'all is well\n' })
  const again = (await rig.ok('agent', 'chat', 'helper', 'say all is well', '--idempotency-key', 'once', '--json')).json()
  expect(again).toMatchObject({ reply: 'all is well', outcome: 'done' })
  expect(bots[0]?.prompts).toEqual(['say all is well'])
  const failed = await rig.run(['agent', 'chat', 'helper', 'fail'])
  expect(failed).toMatchObject({ code: 1, stdout: '! no model\n' })
  const late = await rig.run(['agent', 'chat', 'helper', 'silence', '--timeout', '2', '--json'])
  expect(late.code).toBe(1)
  expect(late.stderr).toContain('"timeout"')
  // What streams ends as early: no wait is longer than what is left.
  const silent = await rig.run(['agent', 'chat', 'helper', 'silence', '--timeout', '1'], { timeoutMs: 15_000 })
  expect(silent).toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringContaining('pylon agent attach helper shows the answer when it comes'),
  })
  const noText = await rig.run(['agent', 'chat', 'helper', '-'], { input: Buffer.from([0x61, 0xff, 0xfe, 0x0a]) })
  expect(noText).toMatchObject({ code: 2, stderr: expect.stringContaining('no UTF-8') })
  const unasked = await rig.run(['agent', 'delete', 'helper'])
  expect(unasked).toMatchObject({ code: 2, stderr: expect.stringContaining('add --yes') })
  expect(unasked.stderr).not.toContain('export')

  expect((await rig.ok('agent', 'list')).stdout).toMatch(/NAME +KIND +STATE[\s\S]*helper +microvm pi +ready/)
  const shown = (await rig.ok('agent', 'show', 'helper')).stdout
  expect(shown).toMatch(/Backup +this substrate makes none/)
  expect(shown).toMatch(/ready \d+\.\d s/)
  const taken = await rig.run([...args, '--json'])
  expect(taken).toMatchObject({ code: 1, stderr: expect.stringContaining('agent_exists') })
  expect((await rig.run(['agent', 'chat', 'nobody', 'hi'])).stderr).toContain('agent_not_found')

  const [cut] = await Promise.all([
    rig.run(['agent', 'chat', 'helper', 'silence'], { timeoutMs: 60_000 }),
    expect
      .poll(() => bots[0]?.prompts.filter((text) => text === 'silence').length, { timeout: 20_000 })
      .toBe(3)
      .then(() => rig.ok('stop', '--sandbox')),
  ])
  expect(cut).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('what was said stays') })
  await rig.ok('start', '--sandbox')
  expect((await rig.ok('agent', 'delete', 'helper', '--yes')).stdout).toMatch(/helper is gone, and microvm-\w+ with it/)
  expect(substrate.left()).toBe(0)
})

test('what cannot be is said in words, with what to do, and leaves nothing', async () => {
  const { rig, substrate } = await started('microvm')
  const foreign = await rig.run(['agent', 'new', '--provider', 'fly', '--spawner-url', 'http://127.0.0.1:1'])
  expect(foreign).toMatchObject({ code: 2, stderr: expect.stringContaining('--spawner-url does not fit --provider fly') })
  const help = (await rig.ok('agent', 'new', '--provider', 'microvm', '--help')).stdout
  for (const flag of ['--spawner-url', '--spawn-variant', '--flake-ref', '--dev-shell', '--cpu', '--memory-mb', '--ttl-seconds', '--keep'])
    expect(help).toContain(flag)
  expect(help).not.toContain('--image')
  expect(help).toContain('wss://us-east.nostr.pikachat.org')
  const acp = await rig.run(['agent', 'new', '--provider', 'microvm', '--protocol', 'acp'])
  expect(acp.code).toBe(2)
  expect(acp.stderr).toContain('--command')
  writeFileSync(join(rig.dir, 'request.json'), JSON.stringify({ guest_role: 'managed-openclaw', microvm: {} }))
  const strict = await rig.run(['agent', 'new', '--request', join(rig.dir, 'request.json')])
  expect(strict).toMatchObject({ code: 2, stderr: expect.stringContaining('microvm') })
  await substrate.server.close()
  const down = await rig.run(['agent', 'new', '--provider', 'microvm', '--command', 'agent'])
  expect(down.code).toBe(1)
  expect(down.stderr).toContain(substrate.server.url)
  expect(down.stderr).toContain('--spawner-url')
})

test('a hosted agent is talked to the same way, and answers by its policy', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  await rig.ok('agent', 'spawn', '--name', 'ada', '--heartbeat', '3600')
  const answered = await rig.run(['agent', 'chat', 'ada', 'hello ada', '--json', '--timeout', '60'], { timeoutMs: 90_000 })
  expect(answered.stderr).toBe('')
  expect(answered.json()).toMatchObject({ outcome: 'done', reply: expect.stringMatching(/./) })
  const { messages } = await rig.call(agentsRoutes.getInbox, { name: 'ada' })
  expect(messages).toMatchObject([{ type: 'dm', scheme: 'mls', text: 'hello ada', own_home: true }])
})
