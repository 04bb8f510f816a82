/** Finding where others read and write: hints, the relays that they write to, and index relays, before anything is taken for missing. */
import { describe, expect, it } from 'vitest'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import type { ScriptedRelayOptions } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const { relay, node } = nostrBench()
const peer = testSigner(7)
const nowS = () => Math.floor(Date.now() / 1000)
const list = (kind: number, tags: string[][], ageS = 0): NostrEvent =>
  peer.sign({ kind, created_at: nowS() - 100 - ageS, tags, content: '' })
const inbox = (url: string) => list(10_050, [['relay', url]])
const DEAD = 'ws://127.0.0.1:9'
/** Hears requests and never answers one. */
const mute: ScriptedRelayOptions = { onFrame: (frame) => frame[0] === 'REQ' }

describe('the DM relays of a peer', () => {
  it('are found where the peer writes, when its relay list is here and they are not', async () => {
    const own = await relay()
    const write = await relay()
    const at = node({ relays: [own.url] })
    at.dialer.allow(write.url, true)
    own.stored.push(list(10_002, [['r', write.url, 'write']]))
    write.stored.push(inbox(own.url))
    expect(await at.nostr.dmRelaysOf(peer.pubkey)).toEqual([own.url])
  })

  it('are found by a hint, also when nothing was found without it a moment ago', async () => {
    const own = await relay()
    const hinted = await relay()
    const at = node({ relays: [own.url] })
    at.dialer.allow(hinted.url, true)
    hinted.stored.push(inbox(own.url))
    expect(await at.nostr.dmRelaysOf(peer.pubkey)).toBeUndefined()
    expect(await at.nostr.dmRelaysOf(peer.pubkey, [hinted.url])).toEqual([own.url])
  })

  it('are found on an index relay, and the newest anywhere counts', async () => {
    const own = await relay()
    const index = await relay()
    const write = await relay()
    const at = node({ relays: [own.url], indexRelays: [index.url] })
    at.dialer.allow(write.url, true)
    own.stored.push(list(10_050, [['relay', DEAD]], 1000))
    index.stored.push(list(10_002, [['r', write.url]]))
    write.stored.push(inbox(write.url))
    expect(await at.nostr.dmRelaysOf(peer.pubkey)).toEqual([write.url])
    expect(await at.nostr.relaysToReach(peer.pubkey)).toEqual([own.url, write.url])
  })

  it('are missing only when somebody answered who should know', async () => {
    const silent = await relay(mute)
    const alone = node({ relays: [silent.url] })
    await expect(alone.nostr.dmRelaysOf(peer.pubkey)).rejects.toMatchObject({ code: 'relay_unreachable' })
    const own = await relay()
    const at = node({ relays: [own.url] })
    at.dialer.allow(DEAD, true)
    own.stored.push(list(10_002, [['r', DEAD]]))
    await expect(at.nostr.dmRelaysOf(peer.pubkey)).rejects.toMatchObject({ code: 'relay_unreachable' })
    own.stored.push(inbox(own.url))
    const later = node({ relays: [own.url] })
    expect(await later.nostr.dmRelaysOf(peer.pubkey)).toEqual([own.url])
  })
})

describe('the newest of a key', () => {
  it('tells who answered, and what was found wherever it lies', async () => {
    const own = await relay()
    const silent = await relay(mute)
    const write = await relay()
    const at = node({ relays: [own.url, silent.url] })
    at.dialer.allow(write.url, true)
    own.stored.push(list(10_002, [['r', write.url]]))
    const profile = peer.sign({ kind: 0, created_at: nowS(), tags: [['i', 'x']], content: '{"name":"p","x":{"deep":1}}' })
    write.stored.push(profile)
    const { events, answered, write: writes, isSure } = await at.nostr.newestOf(peer.pubkey, [0])
    expect(events.get(0)).toEqual(profile)
    expect({ answered, writes, isSure }).toEqual({ answered: [own.url, write.url], writes: [write.url], isSure: true })
  })
})
