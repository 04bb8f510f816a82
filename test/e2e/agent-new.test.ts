/**
 * `pylon agent new` with every provider and protocol. Behind the recording servers runs the real guest program with what they
 * were told; what whoever runs relays and control planes sees of it is looked through for words and keys.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { agentsRoutes } from '../../src/control/contract/agents.ts'
import { managedRoutes } from '../../src/control/contract/managed.ts'
import { readIdentity, unlockIdentity } from '../../src/nostr/keys/identity.ts'
import { secretOfAccount, seedOfWords } from '../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import { RecordingIncus } from '../support/recording-incus.ts'
import { type RelayTap, tapRelay } from '../support/relay-tap.ts'
import { keysBelow, RemoteMachines } from '../support/remote-machines.ts'
import { BROKER_TOKEN, brokerServer, FLY_APP, FLY_TOKEN, flyServer, spawnerServer } from '../support/remote-substrates.ts'
import { PROGRAM, Rig } from '../support/rig.ts'
import { startSandbox } from '../support/sandbox.ts'
import { shellAgent } from '../support/shell-agents.ts'
import { tempDir } from '../support/temp.ts'
import { formsOfKey, formsOfText } from '../support/wire-secrets.ts'

const PROTOCOLS = ['pi', 'acp'] as const

/** A node with every substrate, on a relay where all is overheard. */
async function everySubstrate() {
  const rig = new Rig()
  onTestFinished(() => rig[Symbol.asyncDispose]())
  const machines = new RemoteMachines()
  const [fly, spawner, broker] = [await flyServer(machines), await spawnerServer(1, machines), await brokerServer(true, machines)]
  const incusDir = tempDir()
  const incus = new RecordingIncus(incusDir)
  incus.images.set('image', { 'pylon.guest': 'full' })
  await incus.listen()
  onTestFinished(() => incus.close())
  const guestDir = join(rig.dir, 'guest')
  mkdirSync(guestDir)
  writeFileSync(join(guestDir, 'pylon'), `#!/bin/sh\nexec ${PROGRAM.map((word) => `'${word}'`).join(' ')} "$@"\n`, { mode: 0o755 })
  const tokenFile = (name: string, token: string): string => {
    writeFileSync(join(rig.dir, name), token, { mode: 0o600 })
    return join(rig.dir, name)
  }
  const sections = {
    fly: { api_base_url: fly.url, token_file: tokenFile('fly', FLY_TOKEN), image: 'registry.fly.io/pika-bot', app_name: FLY_APP },
    microvm: { spawner_urls: [spawner.url] },
    workers: { base_url: broker.url, token_file: tokenFile('broker', BROKER_TOKEN) },
    incus: { socket: incus.socketPath, guest_dir: guestDir, image: 'image', run_image: 'image', enabled: true },
  }
  mkdirSync(rig.sandboxHome.dir, { recursive: true, mode: 0o700 })
  const toml = Object.entries(sections).map(([name, fields]) => {
    const lines = Object.entries(fields).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
    return `[runtimes.${name}]\n${lines.join('')}`
  })
  writeFileSync(rig.sandboxHome.config, `[provider]\nprobe = false\n${toml.join('')}`)
  const sandbox = await startSandbox()
  onTestFinished(() => sandbox.stop())
  const tap = await tapRelay(sandbox.relayUrl)
  const start = () => rig.ok('start', '--sandbox', '--relay', tap.url, '--mint', sandbox.mintUrl)
  await start()
  const asked = () => JSON.stringify([fly.requests, spawner.requests, broker.requests, incus.requests])
  const left = () => fly.machines.size + fly.volumes.size + spawner.vms.size + broker.agents.size
  return { rig, start, tap, machines, fly, spawner, broker, incusDir, asked, left }
}

/** The secret keys of the home: node, customer, and who owns its agents. */
async function ownKeys(rig: Rig): Promise<string[]> {
  const identity = readIdentity(rig.sandboxHome.identity)
  if (identity === undefined) throw new Error('the home has no identity')
  const seed = seedOfWords(await unlockIdentity(identity))
  return [0, 1, 2, 10].map((account) => Buffer.from(secretOfAccount(seed, account)).toString('hex'))
}

const pubkeyOf = (secretHex: string) => createSigner(new Uint8Array(Buffer.from(secretHex, 'hex'))).pubkey

/** Who says what on the relay: guests only what they are found by, all that is said by keys that are used once. */
function assertKinds(tap: RelayTap, own: readonly string[], guests: readonly string[]): void {
  const events = tap.events()
  const kindsOf = (pubkey: string) => new Set(events.filter((event) => event.pubkey === pubkey).map(({ kind }) => kind))
  for (const guest of guests) {
    const kinds = kindsOf(guest)
    for (const kind of [30_443, 10_051]) expect(kinds).toContain(kind)
    for (const kind of kinds) expect([443, 30_443, 10_051, 5]).toContain(kind)
  }
  const strangers = events.filter(({ pubkey }) => !own.includes(pubkey) && !guests.includes(pubkey))
  // The list of the home's mints is kept under a key of its own (NUT-27).
  const others = strangers.filter(({ kind }) => kind !== MINT_LIST_KIND)
  for (const { kind } of others) expect([1059, 445]).toContain(kind)
  for (const kind of [1059, 445]) expect(others.map((event) => event.kind)).toContain(kind)
  expect(new Set(others.map(({ pubkey }) => pubkey)).size).toBe(others.length)
  const ofHome = new Set(own.flatMap((pubkey) => [...kindsOf(pubkey)]))
  for (const kind of ofHome) expect([443, 30_443, 10_051, ...CONTROL_KINDS, ...OWN_KINDS]).toContain(kind)
  for (const kind of CONTROL_KINDS.slice(0, 3)) expect(ofHome).toContain(kind)
}

/** Commands of the control plane and their answers, encrypted. */
const CONTROL_KINDS = [24_910, 24_911, 24_912, 24_913]
/** What keys of a home say of themselves, and the canary. */
const OWN_KINDS = [0, 5, 10_002, 10_019, 10_050, 11_998, 20_911, 31_990]
const MINT_LIST_KIND = 30_078

test('every provider with pi and acp, from the command to an answer; relays hear no word, nobody hears a key', {
  timeout: 240_000,
}, async () => {
  const { rig, tap, machines, broker, incusDir, asked, left } = await everySubstrate()
  const guestKeys: string[] = []
  for (const provider of ['local', 'incus', 'microvm', 'fly', 'workers']) {
    const talk = async (protocol: 'pi' | 'acp') => {
      const args = ['agent', 'new', '--provider', provider, '--protocol', protocol, '--command', shellAgent(protocol)]
      const input = `say quicksilver heron ${provider}\ntool\n`
      const run = await rig.run([...args, '--name', `${provider}-${protocol}`], { input, timeoutMs: 100_000 })
      expect(run.stderr).toMatch(/requested.*\n(?:.*\n)*.*waiting_for_keypackage_publish.*\n(?:.*\n)*.*ready/)
      const tool = protocol === 'pi' ? '  [tool] look {}\n  [tool] completed: {}\n' : '  [tool] look\n  [tool] completed\n'
      expect(run).toMatchObject({ code: 0, stdout: `quicksilver heron ${provider}\n${tool}looked\n` })
    }
    const isHere = provider === 'local' || provider === 'incus'
    const inside = () => keysBelow(provider === 'incus' ? incusDir : rig.dir)
    const bothKeys = async () => {
      await expect.poll(() => inside().length, { timeout: 60_000, interval: 50 }).toBe(2)
      guestKeys.push(...inside())
    }
    await Promise.all([...PROTOCOLS.map(talk), isHere ? bothKeys() : undefined])
    expect(left()).toBe(0)
  }
  expect((await rig.call(managedRoutes.listManaged, {})).agents).toEqual([])
  // Each was answered when the guest had dealt with it.
  const handed = broker.requests.filter(({ path }) => path.endsWith('/runtime/process-welcome'))
  expect(handed).toHaveLength(2)

  guestKeys.push(...machines.keys)
  expect(new Set(guestKeys).size).toBe(10)
  const own = await ownKeys(rig)
  assertKinds(tap, own.map(pubkeyOf), guestKeys.map(pubkeyOf))
  const keys = [...own, ...guestKeys].flatMap(formsOfKey)
  const tokens = [...new Set(asked().match(/(?<=session_token":"|SESSION_TOKEN":"|\\"token\\":\\")[0-9a-f]{64}/g))]
  expect(tokens.length).toBeGreaterThanOrEqual(8)
  const words = ['quicksilver heron', 'looked', ...tokens].flatMap(formsOfText)
  const wire = tap.frames.join('\n')
  expect([...keys, ...words].filter((secret) => wire.includes(secret))).toEqual([])
  const bodies = asked()
  expect(keys.filter((secret) => bodies.includes(secret))).toEqual([])
})

test('with --json it is left running, for chat, list and show, and over a boot of its machine; delete ends it', async () => {
  const { rig, start, spawner, left } = await everySubstrate()
  const child = new URL('../support/scripted-pi-child.mjs', import.meta.url).pathname
  const args = ['agent', 'new', '--provider', 'microvm', '--command', `'${process.execPath}' '${child}'`, '--name', 'helper', '--cpu', '1']
  const made = await rig.run([...args, '--memory-mb', '512', '--ttl-seconds', '600', '--json'], { timeoutMs: 120_000 })
  const answer = made.json<{ runtime_id: string }>()
  expect(answer).toMatchObject({
    ...{ provider: 'microvm', protocol: 'pi', runtime_id: expect.stringMatching(/^microvm-/), runtime: { lifecycle_phase: 'ready' } },
    ...{ payload: { operation: 'provision' }, agent: { name: 'helper', phase: 'ready', own_node: true } },
  })
  expect(spawner.requests.find(({ path, method }) => path === '/vms' && method === 'POST')?.body).toMatchObject({
    cpu: 1,
    memory_mb: 512,
    ttl_seconds: 600,
  })

  const said = await rig.run(['agent', 'chat', 'helper', '-', '--idempotency-key', 'once'], { input: 'say all is well\n' })
  expect(said).toMatchObject({ code: 0, stdout: 'all is well\n' })
  const again = (await rig.ok('agent', 'chat', 'helper', 'say all is well', '--idempotency-key', 'once', '--json')).json()
  expect(again).toMatchObject({ reply: 'all is well', outcome: 'done' })
  expect((await rig.ok('agent', 'chat', 'helper', 'recall')).stdout).toBe('say all is well\n')
  await rig.ok('runtime', 'recover', answer.runtime_id)
  expect((await rig.ok('agent', 'chat', 'helper', 'say still the same')).stdout).toBe('still the same\n')
  const failed = await rig.run(['agent', 'chat', 'helper', 'fail'])
  expect(failed).toMatchObject({ code: 1, stdout: '! cannot fail\n' })
  const late = await rig.run(['agent', 'chat', 'helper', 'slow', '--timeout', '2', '--json'])
  expect(late.code).toBe(1)
  expect(late.stderr).toContain('"timeout"')
  // What streams ends as early: no wait is longer than what is left.
  const silent = await rig.run(['agent', 'chat', 'helper', 'slow', '--timeout', '1'], { timeoutMs: 15_000 })
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

  const waiting = async () =>
    (await rig.call(managedRoutes.listen, { peer: 'helper', last: 20 })).messages.filter(({ own, content }) => own && /slow/.test(content))
  const [cut] = await Promise.all([
    rig.run(['agent', 'chat', 'helper', 'slow'], { timeoutMs: 60_000 }),
    expect
      .poll(async () => (await waiting()).length, { timeout: 20_000 })
      .toBe(3)
      .then(() => rig.ok('stop', '--sandbox')),
  ])
  expect(cut).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('what was said stays') })
  await start()
  expect((await rig.ok('agent', 'delete', 'helper', '--yes')).stdout).toMatch(/helper is gone, and microvm-\w+ with it/)
  expect(left()).toBe(0)

  const acp = await rig.run(['agent', 'new', '--provider', 'microvm', '--protocol', 'acp'])
  expect(acp.code).toBe(2)
  expect(acp.stderr).toContain('--command')

  await spawner.close()
  const down = await rig.run(['agent', 'new', '--provider', 'microvm', '--command', 'agent'])
  expect(down.code).toBe(1)
  // Who asked the spawner last: this command, or the node that looked after it meanwhile.
  expect(down.stderr).toMatch(new RegExp(`${spawner.url}|microvm is not usable now.*start the spawner`))
  expect(down.stderr).toContain('--spawner-url')
})

test('what cannot be is said in words, with what to do', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  const foreign = await rig.run(['agent', 'new', '--provider', 'fly', '--spawner-url', 'http://127.0.0.1:1'])
  expect(foreign).toMatchObject({ code: 2, stderr: expect.stringContaining('--spawner-url does not fit --provider fly') })
  const help = (await rig.ok('agent', 'new', '--provider', 'microvm', '--help')).stdout
  for (const flag of ['--spawner-url', '--spawn-variant', '--flake-ref', '--dev-shell', '--cpu', '--memory-mb', '--ttl-seconds', '--keep'])
    expect(help).toContain(flag)
  expect(help).not.toContain('--image')
  expect(help).toContain('wss://us-east.nostr.pikachat.org')
  writeFileSync(join(rig.dir, 'request.json'), JSON.stringify({ guest_role: 'managed-openclaw', microvm: {} }))
  const strict = await rig.run(['agent', 'new', '--request', join(rig.dir, 'request.json')])
  expect(strict).toMatchObject({ code: 2, stderr: expect.stringContaining('microvm') })
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
