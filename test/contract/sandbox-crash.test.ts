/** SIGKILL in the middle of work: whatever the mint and the relay answered is still true after the next start. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Proof, Wallet } from '@cashu/cashu-ts'
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { afterAll, beforeAll, expect, test } from 'vitest'
import WebSocket from 'ws'

interface Urls {
  relayUrl: string
  mintUrl: string
}

let dir: string
let child: ChildProcess | undefined
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'pylon-sandbox-crash-'))
})
afterAll(() => {
  child?.kill('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
})

function start(): Promise<Urls> {
  const started = spawn(process.execPath, [join(import.meta.dirname, '../support/sandbox-child.ts'), dir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  child = started
  return new Promise((resolve, reject) => {
    started.stdout.once('data', (line) => resolve(JSON.parse(String(line)) as Urls))
    started.once('exit', (code) => reject(new Error(`the sandbox ended with ${code}`)))
  })
}

async function kill(): Promise<void> {
  const dying = child
  const gone = new Promise((resolve) => dying?.once('exit', resolve))
  dying?.kill('SIGKILL')
  await gone
}

async function openWallet(mintUrl: string): Promise<Wallet> {
  const wallet = new Wallet(mintUrl, { unit: 'sat' })
  // A pooled connection of the client may still lead to the process that was killed.
  await expect
    .poll(() =>
      wallet
        .loadMint(true)
        .then(() => true)
        .catch(() => false),
    )
    .toBe(true)
  return wallet
}

async function fund(wallet: Wallet, mintUrl: string, amount: number): Promise<Proof[]> {
  const quote = await wallet.createMintQuoteBolt11(amount)
  await fetch(`${mintUrl}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request: quote.request }) })
  return wallet.mintProofsBolt11(amount, quote)
}

test('every swap happened whole or not at all, and every accepted event is kept', async () => {
  const first = await start()
  const wallet = await openWallet(first.mintUrl)
  const coins = await Promise.all(Array.from({ length: 12 }, () => fund(wallet, first.mintUrl, 8)))
  const swaps = await Promise.all(coins.map((proofs) => wallet.prepareSwapToReceive(proofs)))

  const key = generateSecretKey()
  const socket = new WebSocket(first.relayUrl)
  const accepted: string[] = []
  socket.on('error', () => {})
  socket.on('message', (data) => {
    const message = JSON.parse(String(data)) as unknown[]
    if (message[0] === 'OK' && message[2] === true) accepted.push(String(message[1]))
  })
  await new Promise((resolve) => socket.once('open', resolve))
  for (let i = 0; i < 200; i++) {
    const event = finalizeEvent({ kind: 1, created_at: Math.floor(Date.now() / 1000), tags: [], content: String(i) }, key)
    socket.send(JSON.stringify(['EVENT', event]))
  }
  const answers = swaps.map((swap) =>
    wallet
      .completeSwap(swap)
      .then(() => true)
      .catch(() => false),
  )
  await Promise.race(answers)
  await expect.poll(() => accepted.length).toBeGreaterThan(0)
  await kill()
  const answered = await Promise.all(answers)
  expect(answered).toContain(true)

  const second = await start()
  expect(second).toEqual(first)
  const after = await openWallet(second.mintUrl)
  for (const [i, swap] of swaps.entries()) {
    const states = await after.checkProofsStates(swap.inputs)
    const spent = states.filter((state) => state.state === 'SPENT').length
    const outputs = [...(swap.keepOutputs ?? []), ...(swap.sendOutputs ?? [])].map((output) => output.blindedMessage)
    const { signatures } = await after.mint.restore({ outputs })
    expect([0, states.length]).toContain(spent)
    expect(signatures).toHaveLength(spent === 0 ? 0 : outputs.length)
    if (answered[i] === true) expect(spent).toBe(states.length)
    // The same bytes again: the stored answer where it happened, the swap itself where it did not.
    await after.completeSwap(swap)
  }

  const reader = new WebSocket(second.relayUrl)
  await new Promise((resolve) => reader.once('open', resolve))
  const kept = await new Promise<string[]>((resolve) => {
    const ids: string[] = []
    reader.on('message', (data) => {
      const message = JSON.parse(String(data)) as [string, string, { id: string }]
      if (message[0] === 'EVENT') ids.push(message[2].id)
      if (message[0] === 'EOSE') resolve(ids)
    })
    reader.send(JSON.stringify(['REQ', 'all', { authors: [getPublicKey(key)] }]))
  })
  expect(kept).toEqual(expect.arrayContaining(accepted))
  reader.close()
})
