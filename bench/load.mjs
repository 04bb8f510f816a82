// The customer of the benchmark: signs its requests beforehand, keeps a number of them in flight, and waits for each result.
// node load.mjs RELAY_URL PROVIDER_PUBKEY JOBS CONCURRENCY -> one line of JSON
import { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'
import WebSocket from 'ws'

const [relayUrl, provider, jobsText, concurrencyText] = process.argv.slice(2)
const jobs = Number(jobsText)
const concurrency = Number(concurrencyText)
const secret = generateSecretKey()
const me = getPublicKey(secret)
const text =
  'Nostr is a simple protocol for notes. Relays keep the notes and pass them on. Clients sign what they publish. Anyone can run a relay. ' +
  'A data vending machine reads requests and publishes results. Payment goes over Lightning or with ecash.'
const requests = Array.from({ length: jobs }, (_, n) =>
  finalizeEvent(
    {
      kind: 5001,
      created_at: Math.floor(Date.now() / 1000),
      tags: [
        ['i', `${text} Request ${n}.`, 'text'],
        ['p', provider],
      ],
      content: '',
    },
    secret,
  ),
)

const socket = new WebSocket(relayUrl)
const sentAt = new Map()
const latenciesMs = []
const results = new Map()
const feedback = new Set()
let next = 0
let startedAt = 0
let stoppedAt = 0

const send = () => {
  const event = requests[next++]
  if (event === undefined) return
  sentAt.set(event.id, performance.now())
  socket.send(JSON.stringify(['EVENT', event]))
}
const finish = () => {
  const seconds = (stoppedAt - startedAt) / 1000
  latenciesMs.sort((a, b) => a - b)
  // A sample is verified after the clock has stopped: the load generator must not be what is measured.
  const sample = [...results.values()].filter((_, index) => index % Math.ceil(jobs / 20) === 0)
  const valid = sample.every((event) => verifyEvent(event) && event.pubkey === provider)
  console.log(
    JSON.stringify({
      jobs,
      concurrency,
      jobs_per_s: jobs / seconds,
      median_ms: latenciesMs[Math.floor(latenciesMs.length / 2)],
      p99_ms: latenciesMs[Math.floor(latenciesMs.length * 0.99)],
      results: results.size,
      processing: feedback.size,
      sample_valid: valid,
    }),
  )
  process.exit(0)
}

socket.on('open', () => socket.send(JSON.stringify(['REQ', 'answers', { kinds: [7000, 6001], '#p': [me] }])))
socket.on('message', (data) => {
  const [type, , event] = JSON.parse(data.toString())
  if (type === 'EOSE') {
    startedAt = performance.now()
    for (let i = 0; i < concurrency; i++) send()
  }
  if (type !== 'EVENT') return
  const job = event.tags.find((tag) => tag[0] === 'e')?.[1]
  if (event.kind === 7000) feedback.add(job)
  if (event.kind !== 6001 || results.has(job)) return
  results.set(job, event)
  latenciesMs.push(performance.now() - sentAt.get(job))
  if (results.size < jobs) return send()
  stoppedAt = performance.now()
  setTimeout(finish, 200)
})
setTimeout(() => {
  console.error(`only ${results.size} of ${jobs} results came`)
  process.exit(1)
}, 120_000).unref()
