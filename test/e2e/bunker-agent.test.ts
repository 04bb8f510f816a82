/** An agent of one home whose key is in another, which is its bunker: real processes, and kills of either in between. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { NostrEvent } from '../../src/nostr/types.ts'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

const SOON = { timeout: 60_000, interval: 200 }

async function kill(rig: Rig): Promise<void> {
  const { pid } = (await rig.ok('status', '--json')).json<{ pid: number }>()
  process.kill(pid, 'SIGKILL')
}

async function onRelay(filter: Record<string, unknown>): Promise<NostrEvent[]> {
  const socket = new WebSocket(sandbox.relayUrl)
  const heard: string[] = []
  await new Promise<void>((resolve) => {
    socket.addEventListener('open', () => socket.send(JSON.stringify(['REQ', 'x', filter])))
    socket.addEventListener('message', ({ data }) => {
      heard.push(String(data))
      if (String(data).includes('EOSE')) resolve()
    })
  })
  socket.close()
  return heard.flatMap((text) => (text.startsWith('["EVENT"') ? [(JSON.parse(text) as [string, string, NostrEvent])[2]] : []))
}

test('signs by the bunker, waits while it is dead, and says each thing once', async () => {
  const joined = ['--sandbox', '--relay', sandbox.relayUrl, '--mint', sandbox.mintUrl]
  await using elsewhere = new Rig()
  await elsewhere.ok('start', ...joined)
  const granted = [
    '--methods',
    'sign_event,nip44_encrypt,nip44_decrypt',
    '--kinds',
    '0,1,13,443,9734,10002,10019,10050,10051,22242,27235,30443',
  ]
  const made = await elsewhere.ok('bunker', 'create', '--node', ...granted, '--json')
  const { url, connection } = made.json<{ url: string; connection: { pubkey: string } }>()
  await using home = new Rig()
  await home.ok('start', ...joined)
  const spawned = await home.run(['agent', 'spawn', '--name', 'ada', '--bunker', '-', '--heartbeat', '86400', '--json'], { input: url })
  expect(spawned.code, spawned.stderr).toBe(0)
  expect(spawned.json()).toMatchObject({ name: 'ada', pubkey: connection.pubkey })
  const posts = async () => (await onRelay({ kinds: [1], authors: [connection.pubkey] })).map(({ content }) => content)
  await home.ok('agent', 'act', 'ada', 'POST: signed elsewhere', '--json')
  await expect.poll(posts, SOON).toContain('signed elsewhere')
  expect((await home.run(['agent', 'export', 'ada'])).stderr).toContain('bunker_unable')
  expect((await home.run(['bunker', 'create', '--agent', 'ada'])).stderr).toContain('bunker_unable')
  expect((await home.run(['agent', 'spawn', '--bunker', url])).stderr).toContain('agent_exists')

  await kill(elsewhere)
  void home.run(['agent', 'act', 'ada', 'POST: said into silence'])
  const state = async () => (await home.ok('status', '--json')).json<{ remote_keys: { state: string; reason?: string } }>().remote_keys
  await expect.poll(state, SOON).toMatchObject({ state: 'degraded', reason: expect.stringContaining('bunker_unreachable: ada') })
  expect((await home.ok('status')).stdout).toContain('bunker_unreachable')
  expect((await home.run(['doctor', '--json'])).stdout).toContain('bunker_unreachable')
  await kill(home)
  await home.ok('start', ...joined)
  await elsewhere.ok('start', ...joined)
  await expect.poll(posts, SOON).toContain('said into silence')
  await expect.poll(async () => (await state()).state, SOON).toBe('ok')
  const said = await posts()
  expect(said.filter((text) => text === 'said into silence')).toHaveLength(1)
  expect(said.filter((text) => text === 'signed elsewhere')).toHaveLength(1)
}, 240_000)
