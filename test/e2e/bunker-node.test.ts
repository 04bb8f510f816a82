/** A node whose own key is in another home, which is its bunker: it is made, sells, is killed, and sells again. Real processes. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { jobsRoutes } from '../../src/control/contract/jobs.ts'
import { walletRoutes } from '../../src/control/contract/wallet.ts'
import { Rig } from '../support/rig.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

const SOON = { timeout: 90_000, interval: 250 }
const GRANTED = [
  '--methods',
  'sign_event,nip44_encrypt,nip44_decrypt',
  '--kinds',
  '0,5,13,6999,7000,10002,10019,10050,11998,22242,24911,24912,24913,27235,31990',
]

async function kill(rig: Rig): Promise<void> {
  const { pid } = (await rig.ok('status', '--json')).json<{ pid: number }>()
  process.kill(pid, 'SIGKILL')
}

test('is made by a connection string, sells, is killed, sells again, and waits while its bunker is dead', async () => {
  const joined = ['--sandbox', '--relay', sandbox.relayUrl, '--mint', sandbox.mintUrl]
  await using elsewhere = new Rig()
  await elsewhere.ok('start', ...joined)
  const made = await elsewhere.ok('bunker', 'create', '--node', ...GRANTED, '--json')
  const { url, connection } = made.json<{ url: string; connection: { pubkey: string } }>()
  await using home = new Rig()
  const exec = '[[provider.exec]]\nkind = 5999\ncommand = ["tr", "a-z", "A-Z"]\n'
  home.configure(`[provider]\nprobe = false\n[provider.prices]\n5999 = { amount_msats = 5000 }\n${exec}`)
  const init = await home.run(['init', '--sandbox', '--bunker', '-', '--json'], { input: `${url}\n` })
  expect(init.code, init.stderr).toBe(0)
  expect(init.json()).toMatchObject({ pubkey: connection.pubkey, remote: true, words: expect.stringMatching(/^\w+( \w+){11}$/) })
  expect(readFileSync(home.sandboxHome.identity, 'utf8')).not.toContain(new URL(url).searchParams.get('secret'))
  expect(existsSync(join(home.sandboxHome.dir, 'pylon.db'))).toBe(false)
  expect((await home.run(['init', '--sandbox', '--bunker', url])).stderr).toContain('identity_exists')
  await home.ok('start', ...joined, '--mode', 'both')
  expect((await home.run(['bunker', 'create', '--node'])).stderr).toContain('bunker_unable')
  expect((await home.run(['agent', 'spawn', '--bunker', url])).stderr).toContain('agent_exists')

  await using customer = new Rig()
  await customer.ok('start', ...joined, '--mode', 'host')
  await customer.call(walletRoutes.fundWallet, { wallet: 'node', amount_sats: 200 })
  const buy = async (input: string, ...flags: string[]) => {
    const asked = [
      'job',
      'submit',
      '--kind',
      '5999',
      '--input',
      input,
      '--provider',
      connection.pubkey,
      '--timeout',
      '150',
      '--wait',
      '--json',
    ]
    const run = await customer.run([...asked, ...flags], { timeoutMs: 180_000 })
    return { code: run.code, ...run.json<{ status: string; result: string | null }>() }
  }
  const earned = async () => (await home.call(jobsRoutes.listJobs, {})).jobs.filter(({ status }) => status === 'settled').length
  expect(await buy('by invoice')).toMatchObject({ code: 0, status: 'completed', result: 'BY INVOICE' })
  await kill(home)
  await home.ok('start', ...joined, '--mode', 'both')
  expect(await buy('for your eyes', '--encrypt', '--pay-with', 'token')).toMatchObject({ code: 0, result: 'FOR YOUR EYES' })
  await expect.poll(earned, SOON).toBe(2)

  await kill(elsewhere)
  const third = buy('when it is back', '--encrypt', '--pay-with', 'token')
  const state = async () => (await home.ok('status', '--json')).json<{ remote_keys: { state: string; reason?: string } }>().remote_keys
  const isAway = { state: 'degraded', reason: expect.stringMatching(/bunker_unreachable: the node: .*\(since \d{4}-/) }
  await expect.poll(state, SOON).toMatchObject(isAway)
  expect((await home.run(['doctor', '--json'])).stdout).toContain('bunker_unreachable')
  await kill(home)
  await home.ok('start', ...joined, '--mode', 'both')
  await elsewhere.ok('start', ...joined)
  expect(await third).toMatchObject({ code: 0, status: 'completed', result: 'WHEN IT IS BACK' })
  await expect.poll(async () => (await state()).state, SOON).toBe('ok')
  await expect.poll(earned, SOON).toBe(3)
}, 400_000)
