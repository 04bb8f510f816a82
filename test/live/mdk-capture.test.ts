/** Writes test/fixtures/marmot/mdk-0.8 anew, only when asked to: PYLON_MDK_CAPTURE=1 vitest run test/live/mdk-capture.test.ts */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Event, generateSecretKey } from 'nostr-tools/pure'
import { expect, test } from 'vitest'
import WebSocket from 'ws'
import { MdkPeer, mdkPeerProgram } from '../support/mdk-peer.ts'
import { startSandbox } from '../support/sandbox.ts'

const INTO = fileURLToPath(new URL('../fixtures/marmot/mdk-0.8/', import.meta.url))
const asked = process.env['PYLON_MDK_CAPTURE'] === '1'

/** Everything that a relay has and gets, by id. */
async function listen(url: string): Promise<{ readonly events: Map<string, Event>; close(): void }> {
  const events = new Map<string, Event>()
  const socket = new WebSocket(url)
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    socket.once('open', () => socket.send(JSON.stringify(['REQ', 'all', { kinds: [443, 445, 1059, 30_443] }])))
    socket.on('message', (data) => {
      const [type, , event] = JSON.parse(data.toString()) as [string, string, Event]
      if (type === 'EVENT') events.set(event.id, event)
      if (type === 'EOSE') resolve()
    })
  })
  return { events, close: () => socket.terminate() }
}

/** One peer with what somebody else needs to be it. */
async function participant(program: string, relayUrl: string, kind: number | undefined) {
  const nostr_secret = Buffer.from(generateSecretKey()).toString('hex')
  const peer = await MdkPeer.start(program, relayUrl, nostr_secret)
  if (kind === undefined) return { peer, person: { nostr_secret, pubkey: peer.pubkey } }
  const { event } = await peer.call('publish_key_package', { kind })
  const secrets = await peer.call('key_package_secrets', { key_package_event: event })
  return { peer, person: { nostr_secret, pubkey: peer.pubkey, key_package: { event, secrets } } }
}

test.skipIf(!asked)('captures a conversation of mdk peers', async () => {
  const { path: program, missing } = mdkPeerProgram()
  expect(missing).toBeUndefined()
  const sandbox = await startSandbox()
  const { events, close } = await listen(sandbox.relayUrl)
  const ada = await participant(program, sandbox.relayUrl, undefined)
  const bea = await participant(program, sandbox.relayUrl, 30_443)
  const cleo = await participant(program, sandbox.relayUrl, 443)
  const dora = await participant(program, sandbox.relayUrl, 30_443)

  const steps: Record<string, unknown>[] = []
  const epochs: unknown[] = []
  const group = await ada.peer.call('create_group', { name: 'Agent Chat', pubkey: bea.peer.pubkey })
  const { nostr_group_id } = group
  const captured = async (id: string) => {
    await expect.poll(() => events.has(id)).toBe(true)
    return events.get(id)
  }
  const epoch = async () => epochs.push(await ada.peer.call('group_secrets', { nostr_group_id }))
  const note = async (by: string, what: string, id: string, more: object = {}) =>
    steps.push({ by, what, ...more, event: await captured(id) })
  const says = async (by: string, { peer }: { peer: MdkPeer }, content: string) => {
    const { event_id, rumor_id } = await peer.call('send', { nostr_group_id, content })
    if (peer !== ada.peer) await ada.peer.heard('message', (message) => message.event_id === event_id)
    await note(by, 'message', event_id, { content, rumor_id })
  }
  /** A commit of somebody; who is left hears it before anything else is said. */
  const commits = async (
    by: string,
    what: string,
    made: { readonly event_id: string; readonly welcome_wraps?: readonly string[] },
    ...others: MdkPeer[]
  ) => {
    for (const peer of others) await peer.heard('commit', ({ event_id }) => event_id === made.event_id)
    const now = await ada.peer.call('members', { nostr_group_id })
    await note(by, what, made.event_id, { epoch: now.epoch, name: now.name, members: now.members })
    for (const wrap of made.welcome_wraps ?? []) await note(by, 'welcome', wrap)
    await epoch()
  }

  await note('ada', 'welcome', group.welcome_wraps[0] ?? '')
  await bea.peer.heard('joined')
  await epoch()
  await says('ada', ada, 'hello bea')
  await says('bea', bea, 'hello ada')
  await says('ada', ada, 'how are you?\nGrüße 🌻')
  await says('bea', bea, 'well')
  await commits('ada', 'self_update', await ada.peer.call('self_update', { nostr_group_id }), bea.peer)
  await says('ada', ada, 'after my update')
  await commits('ada', 'add', await ada.peer.call('add', { nostr_group_id, key_package_event: cleo.person.key_package?.event }), bea.peer)
  await cleo.peer.heard('joined')
  await says('cleo', cleo, 'I am new')
  await commits('cleo', 'self_update', await cleo.peer.call('self_update', { nostr_group_id }), ada.peer, bea.peer)
  await says('cleo', cleo, 'with new keys')
  await commits('ada', 'rename', await ada.peer.call('rename', { nostr_group_id, name: 'Second name' }), bea.peer, cleo.peer)
  await says('ada', ada, 'after the new name')

  // Whoever hears that somebody leaves commits it: so only one may hear it here.
  await bea.peer[Symbol.asyncDispose]()
  const { event_id: left } = await cleo.peer.call('leave', { nostr_group_id })
  const { committed_by: made = '' } = await ada.peer.heard('proposal', ({ event_id }) => event_id === left)
  await ada.peer.heard('commit', ({ event_id }) => event_id === made)
  await note('cleo', 'leave', left)
  await commits('ada', 'commit_of_leave', { event_id: made })
  await says('ada', ada, 'cleo is gone')
  await commits('ada', 'add', await ada.peer.call('add', { nostr_group_id, pubkey: dora.peer.pubkey }))
  await dora.peer.heard('joined')
  await says('dora', dora, 'I came by 30443')
  await commits('ada', 'remove', await ada.peer.call('remove', { nostr_group_id, pubkey: dora.peer.pubkey }))
  await says('ada', ada, 'only us')

  const people = { ada: ada.person, bea: bea.person, cleo: cleo.person, dora: dora.person }
  const facts = { group_id: group.group_id, nostr_group_id, relays: [sandbox.relayUrl], people, epochs, steps }
  mkdirSync(INTO, { recursive: true })
  writeFileSync(join(INTO, 'conversation.json'), `${JSON.stringify(facts, null, 2)}\n`)
  for (const { peer } of [ada, cleo, dora]) await peer[Symbol.asyncDispose]()
  close()
  await sandbox.stop()
})
