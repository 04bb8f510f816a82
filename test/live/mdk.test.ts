/** Marmot as mdk speaks it, the library of White Noise and pika. First two of its peers alone, which shows that the program is one. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MdkPeer, mdkPeerProgram } from '../support/mdk-peer.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

const { path: program, missing } = mdkPeerProgram()
const skipped = missing === undefined ? '' : ` (skipped: ${missing})`

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

describe.skipIf(missing !== undefined)(`mdk${skipped}`, () => {
  test('two of its peers talk over our relay, across commits of both; a third is added and speaks; one is removed, one leaves', async () => {
    await using ada = await MdkPeer.start(program, sandbox.relayUrl)
    await using bea = await MdkPeer.start(program, sandbox.relayUrl)
    await using cleo = await MdkPeer.start(program, sandbox.relayUrl)
    await bea.call('publish_key_package')
    await cleo.call('publish_key_package', { kind: 443 })

    const group = await ada.call('create_group', { name: 'first', pubkey: bea.pubkey })
    const { nostr_group_id } = group
    expect(await bea.heard('joined')).toMatchObject({ nostr_group_id, name: 'first', epoch: 1, welcomer: ada.pubkey })
    await ada.call('send', { nostr_group_id, content: 'hello' })
    expect(await bea.heard('message')).toMatchObject({ content: 'hello', sender: ada.pubkey, kind: 9, epoch: 1 })
    await bea.call('send', { nostr_group_id, content: 'hello to you' })
    expect(await ada.heard('message')).toMatchObject({ content: 'hello to you', sender: bea.pubkey })

    await bea.call('self_update', { nostr_group_id })
    await ada.heard('commit', ({ epoch }) => epoch === 2)
    await ada.call('rename', { nostr_group_id, name: 'second' })
    await bea.heard('commit', ({ name }) => name === 'second')
    await bea.call('send', { nostr_group_id, content: 'after two commits' })
    await ada.heard('message', ({ content }) => content === 'after two commits')

    await ada.call('add', { nostr_group_id, pubkey: cleo.pubkey })
    await cleo.heard('joined')
    await cleo.call('send', { nostr_group_id, content: 'I am new' })
    await bea.heard('message', ({ content }) => content === 'I am new')
    await ada.call('remove', { nostr_group_id, pubkey: bea.pubkey })
    await bea.heard('left')
    // Whoever hears of a leaving commits it: only one hears of this.
    await cleo.call('leave', { nostr_group_id })
    await cleo.heard('left')
    expect((await ada.call('members', { nostr_group_id })).members).toEqual([ada.pubkey])
  })

  test('commits that two of its peers make at once leave both in one epoch', async () => {
    await using ada = await MdkPeer.start(program, sandbox.relayUrl)
    await using bea = await MdkPeer.start(program, sandbox.relayUrl)
    await bea.call('publish_key_package')
    const { nostr_group_id } = await ada.call('create_group', { name: 'race', pubkey: bea.pubkey })
    await bea.heard('joined')
    for (let round = 0; round < 3; round++) {
      await Promise.all([ada.call('self_update', { nostr_group_id }), bea.call('self_update', { nostr_group_id })])
      // One epoch further, or two where one heard of the other in time.
      const secrets = () => Promise.all([ada.call('group_secrets', { nostr_group_id }), bea.call('group_secrets', { nostr_group_id })])
      await expect.poll(async () => (await secrets()).map((one) => JSON.stringify(one)), { timeout: 10_000 }).toSatisfy(([a, b]) => a === b)
    }
    await ada.call('send', { nostr_group_id, content: 'still one group' })
    await bea.heard('message', ({ content }) => content === 'still one group')
  })
})
