// A flood of unpaid requests from throwaway keys, and what it does to who pays: latency, database, memory.
// PYLON_BIN=build/pylon node bench/flood.mjs [--quick] [--hour]: with --hour nothing is shortened, and it is watched until all is cleaned.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Sqlite from 'better-sqlite3'
import { finalizeEvent, generateSecretKey, getEventHash, getPublicKey } from 'nostr-tools/pure'
import WebSocket from 'ws'

const RATE = 100
const LARGE_EVERY = 30
const LARGE = 'x'.repeat(200_000)
const TEXT = 'Nostr is a simple protocol for notes. Relays keep the notes and pass them on. Clients sign what they publish.'
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

function request(secret, provider, text, work = 0) {
  const template = {
    kind: 5001,
    created_at: Math.floor(Date.now() / 1000),
    content: '',
    tags: [
      ['i', text, 'text'],
      ['p', provider],
      ['t', ''],
    ],
  }
  if (work > 0) {
    const pubkey = getPublicKey(secret)
    const nonce = ['nonce', '0', String(work)]
    template.tags.push(nonce)
    for (let n = 0; leadingZeroBits(getEventHash({ ...template, pubkey })) < work; n++) nonce[1] = String(n)
  } else template.tags[2][1] = String(Math.random())
  return finalizeEvent(template, secret)
}

function leadingZeroBits(hex) {
  const zeros = /^0*/.exec(hex)[0].length
  return zeros * 4 + Math.clz32(Number.parseInt(hex[zeros] ?? '8', 16)) - 28
}

/** A process of its own: RATE new keys a second, each with one request; the socket is never waited for. */
async function flood(relayUrl, provider, seconds) {
  const socket = new WebSocket(relayUrl)
  await new Promise((resolve) => socket.once('open', resolve))
  const startedAt = performance.now()
  for (let sent = 0; sent < RATE * seconds; sent++) {
    const due = startedAt + (sent * 1000) / RATE
    if (due > performance.now()) await sleep(due - performance.now())
    const text = sent % LARGE_EVERY === 0 ? LARGE : `${TEXT} ${sent}.`
    socket.send(JSON.stringify(['EVENT', request(generateSecretKey(), provider, text)]))
  }
  await sleep(1000)
  process.exit(0)
}

/** Buys as anybody would: publishes, pays the invoice at the mint, waits for the result. */
function customer(relayUrl, mintUrl, provider) {
  const socket = new WebSocket(relayUrl)
  const waiting = new Map()
  socket.on('message', (data) => {
    const [type, , event] = JSON.parse(String(data))
    if (type === 'EVENT') waiting.get(event.tags.find((tag) => tag[0] === 'e')?.[1])?.(event)
  })
  let subscriptions = 0
  async function buy(secret, { work = 0, timeoutMs = 30_000 } = {}) {
    const event = request(secret, provider, `${TEXT} Paid.`, work)
    const startedAt = performance.now()
    const outcome = new Promise((resolve) => {
      const timer = setTimeout(() => resolve('silence'), timeoutMs)
      const end = (what) => {
        clearTimeout(timer)
        resolve(what)
      }
      waiting.set(event.id, (answer) => {
        const invoice = answer.tags.find((tag) => tag[0] === 'amount')?.[2]
        if (answer.kind === 6001) end('result')
        else if (invoice !== undefined)
          fetch(`${mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: invoice }) }).catch((error) =>
            end(String(error)),
          )
        else if (answer.tags.some((tag) => tag[0] === 'status' && tag[1] === 'error'))
          end(answer.tags.find((tag) => tag[0] === 'status')[2])
      })
    })
    const sub = `s${subscriptions++}`
    socket.send(JSON.stringify(['REQ', sub, { kinds: [7000, 6001], '#e': [event.id] }]))
    socket.send(JSON.stringify(['EVENT', event]))
    const what = await outcome
    socket.send(JSON.stringify(['CLOSE', sub]))
    waiting.delete(event.id)
    return { what, ms: performance.now() - startedAt }
  }
  return { buy, opened: new Promise((resolve) => socket.once('open', resolve)), close: () => socket.close() }
}

async function main() {
  const quick = process.argv.includes('--quick')
  const isWhole = process.argv.includes('--hour')
  const seconds = quick ? 15 : 60
  const root = dirname(dirname(fileURLToPath(import.meta.url)))
  const bin = process.env.PYLON_BIN ?? join(root, 'build', 'pylon')
  const command = bin.endsWith('.cjs') ? [process.execPath, bin] : [bin]
  const home = mkdtempSync(join(tmpdir(), 'pyf-'))
  const env = { ...process.env, PYLON_HOME: home, HOME: home }
  const pylon = (...args) => execFileSync(command[0], [...command.slice(1), ...args], { env, encoding: 'utf8' })
  const db = join(home, 'sandbox', 'pylon.db')
  const sizeMiB = () => [db, `${db}-wal`].reduce((sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0), 0) / 1_048_576
  const rssMiB = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024
  const rows = () => {
    const database = new Sqlite(db, { readonly: true })
    const all = database.prepare('SELECT status, count(*) AS n FROM jobs GROUP BY status ORDER BY status').all()
    database.close()
    return all.map(({ status, n }) => `${n} ${status}`).join(', ')
  }
  /** What takes the room: KiB of each table with its indices. */
  const room = () => {
    const database = new Sqlite(db, { readonly: true })
    const all = database
      .prepare(
        `SELECT m.tbl_name AS name, sum(s.pgsize) / 1024 AS kib FROM dbstat s JOIN sqlite_schema m ON m.name = s.name
         WHERE s.aggregate = 1 GROUP BY m.tbl_name`,
      )
      .all()
    database.close()
    return new Map(all.map(({ name, kib }) => [name, kib]))
  }
  const grown = (from, to) =>
    [...to]
      .map(([name, kib]) => ({ name, kib: kib - (from.get(name) ?? 0) }))
      .filter(({ kib }) => kib > 15)
      .sort((a, b) => b.kib - a.kib)
      .map(({ name, kib }) => `${name} ${kib} KiB`)
      .join(', ')
  let child
  try {
    pylon('init')
    if (!isWhole) {
      pylon('config', 'set', 'retention.unpaid_jobs_minutes', '1', '--sandbox')
      pylon('config', 'set', 'provider.invoice_expiry_s', '60', '--sandbox')
    }
    pylon('start', '--sandbox')
    const status = JSON.parse(pylon('status', '--json'))
    const { relay_url: relayUrl, mint_url: mintUrl } = status.sandbox
    const provider = status.identity.pubkey
    const shop = customer(relayUrl, mintUrl, provider)
    await shop.opened
    await sleep(3000)
    const regular = generateSecretKey()
    await shop.buy(regular)
    const before = []
    for (let i = 0; i < (quick ? 10 : 30); i++) before.push(await shop.buy(regular))
    const size = { before: sizeMiB(), after: 0, cleaned: 0 }
    const roomBefore = room()
    const memory = { before: rssMiB(status.pid), most: 0 }
    child = spawn(process.execPath, [fileURLToPath(import.meta.url), 'flood', relayUrl, provider, String(seconds)], { stdio: 'inherit' })
    let over = false
    child.once('exit', () => {
      over = true
    })
    const during = []
    const newcomers = []
    const sample = setInterval(() => {
      memory.most = Math.max(memory.most, rssMiB(status.pid))
    }, 250)
    await sleep(2000)
    while (!over) {
      during.push(await shop.buy(regular))
      if (during.length % 10 === 0) newcomers.push(await shop.buy(generateSecretKey(), { work: 18, timeoutMs: 10_000 }))
      await sleep(500)
    }
    size.after = sizeMiB()
    const left = rows()
    const after = []
    for (let i = 0; i < 10; i++) after.push(await shop.buy(regular))
    const overAt = Date.now()
    const minutes = () => Math.round((Date.now() - overAt) / 60_000)
    const watched = []
    const unpaidLeft = () => {
      const database = new Sqlite(db, { readonly: true })
      const { n } = database.prepare("SELECT count(*) AS n FROM jobs WHERE paid_msats = 0 AND status <> 'settled'").get()
      database.close()
      return n
    }
    do {
      await sleep(isWhole ? 60_000 : 160_000)
      size.cleaned = sizeMiB()
      if (minutes() % 10 === 0 || unpaidLeft() === 0)
        watched.push(`${minutes()} min ${size.cleaned.toFixed(2)} MiB (${unpaidLeft()} unpaid)`)
    } while (isWhole && minutes() < 75 && unpaidLeft() > 0)
    clearInterval(sample)
    const f = (value, digits = 0) => value.toFixed(digits)
    const ms = (tries) => median(tries.filter(({ what }) => what === 'result').map(({ ms: took }) => took))
    const served = (tries) => `${tries.filter(({ what }) => what === 'result').length} of ${tries.length} served`
    console.log(`## A flood of unpaid requests

${RATE} requests a second for ${seconds} s, each from a new key, each ${LARGE_EVERY}th of 200 KB, all for a priced kind; meanwhile one customer buys, pays the
invoice at the mint and waits for the result. Node, sandbox, flood and customer share the cores. ${
      isWhole
        ? 'All times are the defaults.'
        : 'Here an invoice is good for a minute\nand unpaid jobs are kept a minute longer; one line stays for each invoice that the mint would still let somebody pay (an hour).'
    }

| what | before | during | after |
|---|---|---|---|
| paid job, from request to result (median) | ${f(ms(before))} ms | ${f(ms(during))} ms (${f(ms(during) / ms(before), 2)} times; ${served(during)}) | ${f(ms(after))} ms |
| paid job of a new customer with 18 bits of proof of work | | ${newcomers.length === 0 ? '' : `${f(ms(newcomers))} ms (${served(newcomers)})`} | |
| database | ${f(size.before, 1)} MiB | | ${f(size.after, 1)} MiB, cleaned ${f(size.cleaned, 1)} MiB |
| memory of the node | ${f(memory.before)} MiB | ${f(memory.most)} MiB at most | ${f(rssMiB(status.pid))} MiB |

Jobs when the flood ended: ${left}. When it was cleaned: ${rows()}.
After the flood: ${watched.join(', ')}.
What grew in the database: ${grown(roomBefore, room()) || 'nothing'}.
`)
    shop.close()
  } finally {
    child?.kill()
    try {
      pylon('stop', '--force')
    } catch {
      // It had not started.
    }
    rmSync(home, { recursive: true, force: true })
  }
}

if (process.argv[2] === 'flood') await flood(process.argv[3], process.argv[4], Number(process.argv[5]))
else await main()
