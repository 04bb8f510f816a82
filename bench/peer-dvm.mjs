// The peer of the benchmark: the shortest data vending machine one would write on nostr-tools. It persists nothing.
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'
import WebSocket from 'ws'

useWebSocketImplementation(WebSocket)
const secret = generateSecretKey()
const pubkey = getPublicKey(secret)
const relay = await Relay.connect(process.argv[2])
const answer = (kind, tags, content) =>
  relay.publish(finalizeEvent({ kind, created_at: Math.floor(Date.now() / 1000), tags, content }, secret))

relay.subscribe([{ kinds: [5001], '#p': [pubkey] }], {
  async onevent(job) {
    const about = [
      ['e', job.id],
      ['p', job.pubkey],
    ]
    await answer(7000, [['status', 'processing'], ...about], '')
    const input = job.tags.find((tag) => tag[0] === 'i')?.[1] ?? ''
    await answer(6001, [['request', JSON.stringify(job)], ...about], input.split('. ')[0])
  },
  oneose: () => console.log(pubkey),
})
