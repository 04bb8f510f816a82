/** Twelve words alone: a home with two mints and an agent is gone, and comes back on a fresh one, with real processes. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { mintBackupSecret, seedOfWords } from '../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import type { NostrEvent } from '../../src/nostr/types.ts'
import { newestMintBackup } from '../../src/wallet/mint-backup/event.ts'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

let first: TestSandbox
let second: TestSandbox
beforeAll(async () => {
  ;[first, second] = await Promise.all([startSandbox(), startSandbox()])
})
afterAll(async () => void (await Promise.all([first.stop(), second.stop()])))

const balanceOf = async (rig: Rig, wallet: string) =>
  (await rig.ok('wallet', 'balance', '--wallet', wallet, '--json')).json<{ balance_sats: number }>().balance_sats

async function fund(rig: Rig, amount: number, mint: string): Promise<void> {
  const before = await balanceOf(rig, 'node')
  const { request } = (await rig.ok('wallet', 'invoice', String(amount), '--mint', mint, '--json')).json<{ request: string }>()
  await fetch(`${mint}/sandbox/pay`, { method: 'POST', body: JSON.stringify({ request }) })
  await expect.poll(() => balanceOf(rig, 'node'), { timeout: 20_000 }).toBe(before + amount)
}

test('bring both mints, all wallets and the agent back', async () => {
  const joined = ['--sandbox', '--relay', first.relayUrl, '--mint', first.mintUrl]
  await using old = new Rig()
  const { words } = (await old.ok('init', '--sandbox', '--json')).json<{ words: string }>()
  await old.ok('start', ...joined)
  await expect.poll(async () => (await old.run(['wallet', 'mints', 'add', second.mintUrl])).code, { timeout: 20_000 }).toBe(0)
  await fund(old, 400, first.mintUrl)
  await fund(old, 300, second.mintUrl)
  await old.ok('agent', 'spawn', '--name', 'ada')
  await old.ok('agent', 'pause', 'ada')
  await old.ok('agent', 'fund', 'ada', '120')
  const held = { node: await balanceOf(old, 'node'), ada: await balanceOf(old, 'ada') }
  const signer = createSigner(mintBackupSecret(seedOfWords(words)))
  const onRelay = async (filter: Record<string, unknown>) => {
    const socket = new WebSocket(first.relayUrl)
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
  // Its list, with the second mint too, and the agent's profile have reached the relay.
  await expect.poll(async () => newestMintBackup(signer, await onRelay({ kinds: [30_078] }))?.mints.length, { timeout: 30_000 }).toBe(2)
  await expect
    .poll(async () => (await onRelay({ kinds: [0] })).some(({ content }) => content.includes('"ada"')), { timeout: 20_000 })
    .toBe(true)
  await old.ok('stop')

  await using fresh = new Rig()
  const inArgv = await fresh.run(['init', '--sandbox', '--restore-words', words, '--relay', first.relayUrl, '--json'])
  expect(JSON.parse(inArgv.stderr)).toMatchObject({ error: { code: 'usage' } })
  // Killed in the middle, it is done again.
  const command = ['init', '--sandbox', '--restore-words', '-', '--relay', first.relayUrl, '--json']
  const killed = fresh.spawn(command)
  killed.stdin?.end(words)
  const died = new Promise<NodeJS.Signals | null>((resolve) => killed.once('close', (_code, signal) => resolve(signal)))
  killed.stderr?.on('data', (chunk: Buffer) => void (String(chunk).includes('wallet_read') && killed.kill('SIGKILL')))
  expect(await died).toBe('SIGKILL')
  const restored = await fresh.run(['init', '--sandbox', '--restore-words', '-', '--relay', first.relayUrl, '--json'], {
    input: `${words}\n`,
  })
  expect(restored.code, restored.stderr).toBe(0)
  const answer = restored.json<{ restored_sats: number; mints: string[]; agents: { name: string }[]; unread: unknown[] }>()
  expect(answer).toMatchObject({ unread: [], problems: [] })
  // What was committed before the kill is there already.
  expect(answer.restored_sats).toBeLessThan(held.node + held.ada)
  expect(answer.mints.sort()).toEqual([first.mintUrl, second.mintUrl].sort())
  const steps = restored.stderr
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { step: string }).step)
  expect(steps[0]).toBe('mint_list')
  expect(steps.filter((step) => step === 'mint_read')).toHaveLength(2)
  expect(restored.stdout + restored.stderr).not.toContain(words)

  await fresh.ok('start', ...joined)
  expect(await balanceOf(fresh, 'node')).toBe(held.node)
  expect(answer.agents).toMatchObject([{ name: 'ada' }])
  expect(await balanceOf(fresh, 'ada')).toBe(held.ada)
  const { checks } = (await fresh.run(['doctor', '--json'])).json<{ checks: { name: string; state: string; message: string }[] }>()
  expect(checks.filter(({ name, state }) => state === 'failed' && /ledger|coins|audit/.test(name))).toEqual([])
  expect((await fresh.ok('wallet', 'restore', '--json')).json()).toMatchObject({ restored_sats: 0, problems: [] })
  await fresh.ok('wallet', 'send', '50', '--mint', second.mintUrl)
  await fresh.ok('stop')
})
