/** `pylon wallet` against a sandbox node: play money in, out and between wallets, told the same by every command. */
import { readFileSync, statSync } from 'node:fs'
import { getDecodedToken, getTokenMetadata } from '@cashu/cashu-ts'
import { npubEncode, nsecEncode } from 'nostr-tools/nip19'
import { encrypt, getConversationKey } from 'nostr-tools/nip44'
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { expect, test } from 'vitest'
import { Rig } from '../support/rig.ts'

interface Balance {
  readonly network: string
  readonly balance_sats: number
  readonly at_risk_sats: number
  readonly lock_pubkey: string
  readonly mints: readonly { url: string; balance_sats: number }[]
}

interface Connection {
  readonly id: string
  readonly url: string
}

const balanceOf = async (rig: Rig, ...flags: string[]) => (await rig.ok('wallet', 'balance', '--json', ...flags)).json<Balance>()

test('sats come in, go out and are all accounted for', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')

  const funded = (await rig.ok('wallet', 'fund', '1000', '--json')).json()
  expect(funded).toMatchObject({ network: 'sandbox', wallet: 'node', amount_sats: 1000, balance_sats: 1000 })
  const balance = await balanceOf(rig)
  expect(balance).toMatchObject({ network: 'sandbox', balance_sats: 1000, at_risk_sats: 0, mints: [{ balance_sats: 1000 }] })
  expect((await rig.ok('wallet', 'balance')).stderr).toBe('(sandbox: play money)\n')

  // The same key with the same request is the same move.
  const first = (await rig.ok('wallet', 'send', '100', '--idempotency-key', 'once', '--json')).json<{ token: string }>()
  const again = (await rig.ok('wallet', 'send', '100', '--idempotency-key', 'once', '--json')).json<{ token: string }>()
  expect(again.token).toBe(first.token)
  expect((await balanceOf(rig)).balance_sats).toBeGreaterThan(890)
  const other = await rig.run(['wallet', 'send', '101', '--idempotency-key', 'once', '--json'])
  expect(other.code).toBe(1)
  expect(JSON.parse(other.stderr)).toMatchObject({ error: { code: 'idempotency_conflict' } })

  const received = await rig.run(['wallet', 'receive', '-', '--wallet', 'customer', '--json'], { input: `${first.token}\n` })
  expect(received.json()).toMatchObject({ network: 'sandbox', mint_url: balance.mints[0]?.url })
  const customer = await balanceOf(rig, '--wallet', 'customer')
  expect(customer.balance_sats).toBeGreaterThan(90)
  const spent = await rig.run(['wallet', 'receive', '-', '--wallet', 'customer', '--json'], { input: first.token })
  expect(spent).toMatchObject({ code: 1, stdout: '' })
  expect(JSON.parse(spent.stderr)).toMatchObject({ error: { code: 'token_spent', retryable: false } })

  // What nobody took comes back, by the key of the call or the id that was given; once.
  const unspent = (await rig.ok('wallet', 'send', '20', '--idempotency-key', 'back', '--json')).json<{ operation_id: string }>()
  for (const key of ['back', unspent.operation_id])
    expect((await rig.ok('wallet', 'reclaim', key, '--json')).json()).toMatchObject({ state: 'reclaimed', amount_sats: 20 })
  expect((await rig.ok('wallet', 'reclaim', 'once', '--json')).json()).toMatchObject({ state: 'claimed' })
  expect((await rig.run(['wallet', 'reclaim', 'nothing'])).stderr).toContain('not_found')

  // Locked to the customer: only its wallet can redeem it.
  const locked = (await rig.ok('wallet', 'send', '50', '--lock', customer.lock_pubkey, '--json')).json<{ token: string }>()
  const thief = await rig.run(['wallet', 'receive', '-', '--json'], { input: locked.token })
  expect(JSON.parse(thief.stderr)).toMatchObject({ error: { code: 'token_locked' } })
  expect((await rig.run(['wallet', 'receive', '-', '--wallet', 'customer'], { input: locked.token })).code).toBe(0)

  const invoice = (await rig.ok('wallet', 'invoice', '25', '--wallet', 'customer', '--json')).json<Record<string, unknown>>()
  expect(invoice).toMatchObject({ network: 'sandbox', quote_id: expect.any(String), amount_sats: 25, state: 'unpaid' })
  expect(invoice['request']).toMatch(/^lnbcrt/)
  expect(new Date(String(invoice['expires_at'])).toISOString()).toBe(invoice['expires_at'])
  const paid = await rig.run(['wallet', 'pay', '-', '--json'], { input: String(invoice['request']) })
  expect(paid.json()).toMatchObject({ state: 'paid', preimage: expect.stringMatching(/^[0-9a-f]{64}$/) })
  await expect.poll(async () => (await balanceOf(rig, '--wallet', 'customer')).balance_sats, { timeout: 15_000 }).toBeGreaterThan(160)

  const { entries } = (await rig.ok('wallet', 'history', '--json')).json<{ entries: { amount_msats: number }[] }>()
  const { balance_sats } = await balanceOf(rig)
  expect(entries.reduce((sum, entry) => sum + entry.amount_msats, 0)).toBe(balance_sats * 1000)
  expect((await rig.ok('wallet', 'restore', '--json')).json()).toMatchObject({ restored_sats: 0, balance_sats })

  // What is above a limit leaves as a token that the customer alone can redeem.
  await rig.ok('wallet', 'payout', 'set', 'token', '--lock-to', customer.lock_pubkey, '--above', '100000', '--keep', '300')
  const next = (await rig.ok('wallet', 'payout', 'now', '--dry-run', '--json')).json<{ next: { limit_sats: number } }>()
  expect(next.next.limit_sats).toBe(balance_sats - 300)
  const { payouts } = (await rig.ok('wallet', 'payout', 'now', '--json')).json<{ payouts: { state: string; file: string }[] }>()
  expect(payouts).toMatchObject([{ state: 'paid' }])
  expect(statSync(payouts[0]?.file ?? '').mode & 0o777).toBe(0o600)
  expect((await balanceOf(rig)).balance_sats).toBe(300)
  const paidOut = readFileSync(payouts[0]?.file ?? '', 'utf8')
  expect((await rig.run(['wallet', 'receive', '-', '--wallet', 'customer'], { input: paidOut })).code).toBe(0)
  await rig.ok('wallet', 'payout', 'off')
  expect((await rig.run(['wallet', 'payout', 'show'])).stderr).toContain('payout_missing')

  // What funding is not is not earnings.
  expect((await rig.ok('earnings', '--json')).json()).toMatchObject({ network: 'sandbox', total_msats: 0, recent: [] })
})

test('a wallet is lent by a string and connected by one, which no output shows again', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  await rig.ok('wallet', 'fund', '100')
  const made = (await rig.ok('wallet', 'nwc', 'create', '--owner', '--budget', '50/day', '--expires', '1d', '--json')).json<Connection>()
  expect(made).toMatchObject({ network: 'sandbox', id: expect.stringMatching(/^[0-9a-f]{12}$/), budget: { sats: 50, per: 'day' } })
  expect(made.url).toMatch(/^nostr\+walletconnect:\/\/[0-9a-f]{64}\?relay=ws/)
  const secret = made.url.slice(-64)

  const connected = await rig.run(['wallet', 'connect', '-', '--json'], { input: made.url })
  expect(connected.json()).toMatchObject({ state: 'ok', balance_sats: 100, receives: false })
  const { lightning } = (await rig.ok('wallet', 'balance', '--json')).json<{ lightning: unknown }>()
  expect(lightning).toMatchObject({ state: 'ok', balance_sats: 100 })
  expect((await rig.ok('status', '--json')).json()).toMatchObject({
    wallet: { balance_sats: 100, lightning: { state: 'ok', balance_sats: 100 } },
  })
  const shown = (await rig.ok('wallet', 'nwc', 'show', made.id, '--json')).stdout
  expect(JSON.parse(shown)).toMatchObject({
    connection: { state: 'active', spent_sats: 0 },
    requests: [{ method: 'get_balance', state: 'done' }],
  })
  for (const output of [connected.stdout, shown, rig.logs()]) expect(output).not.toContain(secret)

  await rig.ok('wallet', 'nwc', 'revoke', made.id)
  expect((await rig.ok('wallet', 'nwc', 'list')).stdout).toContain('revoked')
  await rig.ok('wallet', 'disconnect')
  const gone = await rig.run(['wallet', 'connect'])
  expect(gone).toMatchObject({ code: 1, stdout: '' })
  expect(gone.stderr).toContain('nwc_missing')
})

test('the wallet of another program is read from relays by its key, told, and taken once', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  await rig.ok('wallet', 'fund', '500')
  const { token } = (await rig.ok('wallet', 'send', '200', '--json')).json<{ token: string }>()
  const { relays } = (await rig.ok('status', '--json')).json<{ relays: { url: string }[] }>()
  const { mint, incompleteProofs } = getTokenMetadata(token)
  const { keysets } = (await (await fetch(`${mint}/v1/keysets`)).json()) as { keysets: { id: string }[] }
  const proofs = getDecodedToken(
    token,
    keysets.map(({ id }) => id),
  ).proofs.map(({ id, amount, secret, C }) => ({ id, amount: amount.toNumber(), secret, C }))
  const secret = generateSecretKey()
  const content = encrypt(JSON.stringify({ mint, proofs }), getConversationKey(secret, getPublicKey(secret)))
  const event = finalizeEvent({ kind: 7375, created_at: Math.floor(Date.now() / 1000), tags: [], content }, secret)
  const socket = new WebSocket(relays[0]?.url ?? '')
  await new Promise((resolve) => socket.addEventListener('open', resolve))
  const said = new Promise((resolve) => socket.addEventListener('message', resolve))
  socket.send(JSON.stringify(['EVENT', event]))
  await said
  socket.close()
  const before = (await balanceOf(rig)).balance_sats
  // What was sent is the receiver's, though it is unspent and the books know it: not this home's to take.
  const input = nsecEncode(secret)
  const restore = (...flags: string[]) => rig.run(['wallet', 'restore', '--nip60', '--nsec', '-', ...flags], { input })
  const told = (await restore('--dry-run', '--json', '--wallet', 'customer')).json<Record<string, unknown>>()
  expect(told).toMatchObject({ state: 'quoted', npub: npubEncode(getPublicKey(secret)), events: 1, received_sats: 0 })
  expect(told['mints']).toMatchObject([{ mint_url: mint, listed: true, coins: incompleteProofs.length, free_sats: 0 }])
  expect((await restore()).stdout).toContain('held or given away by this home already')
  expect((await balanceOf(rig)).balance_sats).toBe(before)

  // A wallet made by another home.
  await using other = new Rig()
  await other.ok('start', '--sandbox', '--relay', relays[0]?.url ?? '', '--mint', mint)
  const taking = (...flags: string[]) => other.run(['wallet', 'restore', '--nip60', '--nsec', '-', ...flags], { input })
  const taken = await taking()
  expect(taken).toMatchObject({ code: 0 })
  const held = (await balanceOf(other)).balance_sats
  expect(held).toBeGreaterThan(190)
  expect(taken.stderr).toContain(`taking ${held} sats, for `)
  expect(taken.stdout).toContain(`Took ${held} sats`)
  expect((await taking('--json')).json()).toMatchObject({ state: 'taken', received_sats: 0, balance_sats: held })
  for (const flags of [['--nsec', input], ['--move']]) expect((await other.run(['wallet', 'restore', ...flags])).code).toBe(2)
  expect((await other.run(['wallet', 'restore', '--nip60', '--nsec', '-'], { input: 'nonsense' })).stderr).toContain('identity_invalid')
  await other.ok('stop')
  const kept = readFileSync(other.sandboxHome.database).toString('latin1') + other.logs()
  for (const form of [input, Buffer.from(secret).toString('hex')]) expect(kept).not.toContain(form)
})

test('the node and its agents are paid at addresses that one command tells', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  await rig.ok('agent', 'spawn', '--name', 'ada')
  interface Address {
    wallet: string
    lnurl: string | null
    source: string
    reason: string | null
  }
  const list = async () => (await rig.ok('wallet', 'address', 'list', '--json')).json<{ service: string; addresses: Address[] }>()
  await expect.poll(async () => (await list()).addresses[1]?.lnurl, { timeout: 20_000 }).toMatch(/^lnurl1/)
  const { service, addresses } = await list()
  expect(service).toMatch(/^http:/)
  expect(addresses).toMatchObject([
    { wallet: 'node', lnurl: null, source: 'none', reason: expect.stringContaining('pylon wallet address make') },
    { wallet: 'ada', source: 'service', reason: null },
  ])
  const made = (await rig.ok('wallet', 'address', 'make', '--json')).json<Address>()
  expect((await rig.ok('wallet', 'address', 'make', '--json')).json()).toEqual(made)
  expect(made).toMatchObject({ wallet: 'node', lnurl: expect.stringMatching(/^lnurl1/), source: 'service', reason: null })
  await rig.ok('wallet', 'fund', '100', '--wallet', 'customer')
  await rig.ok('wallet', 'pay', made.lnurl ?? '', '21', '--wallet', 'customer')
  await expect.poll(async () => (await balanceOf(rig)).balance_sats, { timeout: 20_000 }).toBe(21)
  await rig.ok('agent', 'set', 'ada', '--lud16', 'ada@example.com')
  expect((await rig.ok('wallet', 'address', 'show', 'ada')).stdout).toMatch(/Address +ada@example.com/)
  expect((await rig.ok('wallet', 'address', 'list')).stdout).toContain('ada@example.com')
  for (const name of ['customer', 'nobody']) {
    const refused = await rig.run(['wallet', 'address', 'make', name, '--json'])
    expect(JSON.parse(refused.stderr)).toMatchObject({ error: { code: 'wallet_not_found' } })
  }
})

test('what cannot be done says so, and what to do; the faucet pays once for calls at once under one key, and all are told so', async () => {
  await using rig = new Rig()
  await rig.ok('start', '--sandbox')
  const fails = async (code: string, ...args: string[]) => {
    const run = await rig.run([...args, '--json'])
    expect(run).toMatchObject({ code: 1, stdout: '' })
    expect(JSON.parse(run.stderr)).toMatchObject({ error: { code, message: expect.any(String) } })
  }
  await fails('insufficient_funds', 'wallet', 'send', '5')
  await fails('token_invalid', 'wallet', 'receive', 'cashuBnonsense')
  await fails('wallet_not_found', 'wallet', 'balance', '--wallet', 'nobody')
  await fails('pubkey_invalid', 'wallet', 'send', '5', '--lock', 'npub1nonsense')
  await fails('invoice_invalid', 'wallet', 'pay', 'lnbcrt1nonsense')
  await fails('job_not_found', 'jobs', 'show', 'ff')
  await fails('agent_not_found', 'agent', 'show', 'nobody')
  const mints = (await rig.ok('wallet', 'mints', 'list', '--json')).json<{ mints: { url: string; cap_sats: number }[] }>()
  expect(mints.mints).toHaveLength(1)
  const fund = () => rig.ok('wallet', 'fund', '10', '--idempotency-key', 'faucet', '--json')
  const all = await Promise.all([fund(), fund(), fund()])
  for (const one of all) expect(one.json()).toMatchObject({ amount_sats: 10, balance_sats: 10 })
  expect((await balanceOf(rig)).balance_sats).toBe(10)
  await fails('mint_in_use', 'wallet', 'mints', 'remove', mints.mints[0]?.url ?? '')
  await rig.ok('stop')
  const stopped = await rig.run(['wallet', 'balance'])
  expect(stopped).toMatchObject({ code: 3, stdout: '' })
  expect(stopped.stderr).toContain('pylon start')
})

test('there is no faucet on the open network', async () => {
  await using rig = new Rig()
  await rig.ok('start')
  const run = await rig.run(['wallet', 'fund', '10'])
  expect(run.code).toBe(1)
  expect(run.stderr).toContain('pylon wallet invoice 10')
  expect(run.stderr).toContain('faucet_unavailable')
})
