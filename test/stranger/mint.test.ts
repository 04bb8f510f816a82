/** The mint as other people's wallets see it: cashu-ts, raw fetch and ws, nothing of ours. */
import { createHash } from 'node:crypto'
import { type MintQuoteBolt11Response, type Proof, signMintQuote, Wallet } from '@cashu/cashu-ts'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { decode } from 'light-bolt11-decoder'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'

let sandbox: TestSandbox
beforeAll(async () => {
  sandbox = await startSandbox()
})
afterAll(() => sandbox.stop())

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const randomKey = () => {
  const secret = secp256k1.utils.randomSecretKey()
  return { privkey: hex(secret), pubkey: hex(secp256k1.getPublicKey(secret, true)) }
}
const sum = (proofs: readonly { amount: { toNumber(): number } }[]) => proofs.reduce((total, proof) => total + proof.amount.toNumber(), 0)

async function openWallet(options: ConstructorParameters<typeof Wallet>[1] = {}, mintUrl = sandbox.mintUrl): Promise<Wallet> {
  const wallet = new Wallet(mintUrl, { unit: 'sat', requireSigDleq: true, ...options })
  await wallet.loadMint()
  return wallet
}

async function post(path: string, body: unknown, mintUrl = sandbox.mintUrl): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await fetch(mintUrl + path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) })
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

const pay = (request: string, mintUrl = sandbox.mintUrl) => post('/sandbox/pay', { request }, mintUrl)

async function fund(wallet: Wallet, amount: number, mintUrl = sandbox.mintUrl): Promise<Proof[]> {
  const quote = await wallet.createMintQuoteBolt11(amount)
  expect((await pay(quote.request, mintUrl)).status).toBe(200)
  return wallet.mintProofsBolt11(amount, quote)
}

/** Plain JSON of proofs, for requests made without a wallet. */
const plain = (proofs: readonly Proof[]) =>
  proofs.map(({ id, amount, secret, C, witness }) => ({ id, amount: amount.toNumber(), secret, C, witness }))

describe('mint', () => {
  test('the invoice is real: regtest, exact amount, paid once, its preimage hashes to its payment hash', async () => {
    const wallet = await openWallet()
    const quote = await wallet.createMintQuoteBolt11(1_234, 'for lunch')
    const sections = Object.fromEntries(decode(quote.request).sections.map((s) => [s.name, 'value' in s ? s.value : undefined]))
    expect(quote.request).toMatch(/^lnbcrt/)
    expect(sections).toMatchObject({ amount: '1234000', description: 'for lunch' })
    await expect(wallet.mintProofsBolt11(1_234, quote)).rejects.toMatchObject({ code: 20_001 })
    const paid = await pay(quote.request)
    expect(
      createHash('sha256')
        .update(Buffer.from(String(paid.body['preimage']), 'hex'))
        .digest('hex'),
    ).toBe(sections['payment_hash'])
    expect((await pay(quote.request)).body['code']).toBe(20_006)
    expect(sum(await wallet.mintProofsBolt11(1_234, quote))).toBe(1_234)
    expect((await wallet.checkMintQuoteBolt11(quote.quote)).state).toBe('ISSUED')
    await expect(wallet.mintProofsBolt11(1_234, quote)).rejects.toMatchObject({ code: 20_002 })
  })

  test('a locked quote (NUT-20) is minted with its key only', async () => {
    const wallet = await openWallet()
    const [owner, thief] = [randomKey(), randomKey()]
    const quote = (await wallet.createLockedMintQuote(8, owner.pubkey)) as MintQuoteBolt11Response
    expect(quote.pubkey).toBe(owner.pubkey)
    await pay(quote.request)
    const outputs = await wallet.prepareMint('bolt11', 8, { quote: quote.quote })
    await expect(wallet.completeMint(outputs)).rejects.toMatchObject({ code: 20_008 })
    const blinded = outputs.payload.outputs.map((output) => ({ ...output, amount: Number(output.amount) }))
    const signature = signMintQuote(thief.privkey, quote.quote, outputs.payload.outputs)
    expect((await post('/v1/mint/bolt11', { quote: quote.quote, outputs: blinded, signature })).body['code']).toBe(20_008)
    expect(sum(await wallet.mintProofsBolt11(8, quote, { privkey: owner.privkey }))).toBe(8)
  })

  test('limits, units and keys of quotes are checked with the specified codes', async () => {
    const code = async (path: string, body: unknown) => (await post(path, body)).body['code']
    expect(await code('/v1/mint/quote/bolt11', { amount: 0, unit: 'sat' })).toBe(11_006)
    expect(await code('/v1/mint/quote/bolt11', { amount: 100_000_001, unit: 'sat' })).toBe(11_006)
    expect(await code('/v1/mint/quote/bolt11', { amount: 5, unit: 'usd' })).toBe(11_013)
    expect(await code('/v1/mint/quote/bolt11', { amount: 5, unit: 'sat', pubkey: 'nonsense' })).toBe(20_009)
    expect(await code('/v1/melt/quote/bolt11', { request: 'lnbc1nonsense', unit: 'sat' })).toBe(10_000)
  })
})

describe('swap', () => {
  test('send and receive cost the announced fee, and what was spent cannot be spent again', async () => {
    const [alice, bob] = [await openWallet(), await openWallet()]
    const proofs = await fund(alice, 100)
    const { keep, send } = await alice.send(40, proofs)
    expect(sum(send)).toBe(40)
    expect(sum(keep)).toBe(100 - 40 - alice.getFeesForProofs(proofs).toNumber())
    const received = await bob.receive(send, { requireDleq: true })
    expect(sum(received)).toBe(40 - alice.getFeesForProofs(send).toNumber())
    await expect(alice.receive(send)).rejects.toMatchObject({ code: 11_001 })
    expect((await alice.checkProofsStates(send)).every((state) => state.state === 'SPENT')).toBe(true)
    expect((await bob.checkProofsStates(received)).every((state) => state.state === 'UNSPENT')).toBe(true)
  })

  test('of two swaps of one proof at once, one succeeds', async () => {
    const wallet = await openWallet()
    const proofs = await fund(wallet, 16)
    const outcomes = await Promise.allSettled([wallet.receive(proofs), wallet.receive(proofs), wallet.receive(proofs)])
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1)
    for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 11_001 })
  })

  test('a token locked to a key (NUT-11) opens with that key only', async () => {
    const [alice, bob] = [await openWallet(), await openWallet()]
    const [owner, thief] = [randomKey(), randomKey()]
    const { send } = await alice.ops
      .send(20, await fund(alice, 64))
      .asP2PK({ pubkey: owner.pubkey })
      .run()
    await expect(bob.receive(send)).rejects.toMatchObject({ code: 10_001 })
    await expect(bob.receive(send, { privkey: thief.privkey })).rejects.toMatchObject({ code: 10_001 })
    expect(sum(await bob.receive(send, { privkey: owner.privkey }))).toBe(19)
    const [state] = await bob.checkProofsStates(send)
    expect(state?.witness).toContain('signatures')
  })

  test('two of two, refund after the lock time, and SIG_ALL are enforced', async () => {
    const wallet = await openWallet()
    const [a, b, refund] = [randomKey(), randomKey(), randomKey()]
    const lock = async (options: Parameters<ReturnType<typeof wallet.ops.send>['asP2PK']>[0]) =>
      (
        await wallet.ops
          .send(8, await fund(wallet, 32))
          .asP2PK(options)
          .run()
      ).send

    const both = await lock({ pubkey: [a.pubkey, b.pubkey], requiredSignatures: 2 })
    await expect(wallet.receive(both, { privkey: a.privkey })).rejects.toMatchObject({ code: 10_001 })
    expect(sum(await wallet.receive(both, { privkey: [a.privkey, b.privkey] }))).toBe(7)

    const now = Math.floor(Date.now() / 1000)
    const active = await lock({ pubkey: a.pubkey, locktime: now + 3_600, refundKeys: [refund.pubkey] })
    await expect(wallet.receive(active, { privkey: refund.privkey })).rejects.toMatchObject({ code: 10_001 })
    const expired = await lock({ pubkey: a.pubkey, locktime: now - 3_600, refundKeys: [refund.pubkey] })
    await expect(wallet.receive(expired, { privkey: b.privkey })).rejects.toMatchObject({ code: 10_001 })
    expect(sum(await wallet.receive(expired, { privkey: refund.privkey }))).toBe(7)

    const all = await lock({ pubkey: a.pubkey, sigFlag: 'SIG_ALL' })
    const prepared = await wallet.prepareSwapToReceive(all)
    const signed = wallet.signP2PKProofs(all, a.privkey, [...(prepared.keepOutputs ?? []), ...(prepared.sendOutputs ?? [])])
    const other = await wallet.prepareSwapToReceive(all)
    await expect(wallet.completeSwap({ ...other, inputs: signed })).rejects.toMatchObject({ code: 10_001 })
    expect(sum((await wallet.completeSwap(prepared, a.privkey)).keep)).toBe(7)
  })

  test('unbalanced, duplicate, foreign, inactive and zero are refused with the specified codes', async () => {
    const wallet = await openWallet()
    const inputs = plain(await fund(wallet, 16))
    const outputsFor = async (amount: number) =>
      (await wallet.prepareMint('bolt11', amount, { quote: 'none' })).payload.outputs.map((o) => ({ ...o, amount: Number(o.amount) }))
    const code = async (body: unknown) => (await post('/v1/swap', body)).body['code']
    const [fifteen, sixteen] = [await outputsFor(15), await outputsFor(16)]
    const [input] = inputs
    expect(await code({ inputs, outputs: sixteen })).toBe(11_005)
    expect(await code({ inputs: [...inputs, input], outputs: fifteen })).toBe(11_007)
    expect(await code({ inputs, outputs: [fifteen[0], fifteen[0]] })).toBe(11_008)
    expect(await code({ inputs: [{ ...input, secret: 'another' }], outputs: fifteen })).toBe(10_001)
    expect(await code({ inputs, outputs: fifteen.map((o) => ({ ...o, id: `01${'0'.repeat(64)}` })) })).toBe(12_001)
    expect(await code({ inputs, outputs: fifteen.map((o) => ({ ...o, amount: 0 })) })).toBe(11_005)
    expect(await code({ inputs, outputs: Array(1_001).fill(fifteen[0]) })).toBe(11_015)
    expect(await code({ inputs: Array(1_001).fill(input), outputs: fifteen })).toBe(11_014)
    expect((await post('/v1/swap', { inputs, outputs: fifteen })).status).toBe(200)
    const more = plain(await fund(wallet, 16))
    expect(await code({ inputs: more, outputs: fifteen })).toBe(11_003)
  })

  test('the same request gets the same answer again (NUT-19), also after a lost response', async () => {
    const wallet = await openWallet()
    const inputs = plain(await fund(wallet, 4))
    const { outputs } = (await wallet.prepareMint('bolt11', 3, { quote: 'none' })).payload
    const request = JSON.stringify({ inputs, outputs: outputs.map((o) => ({ ...o, amount: Number(o.amount) })) })
    await sandbox.faults({ drop_response_after_commit: { path: '/v1/swap', count: 1 } })
    await expect(post('/v1/swap', request)).rejects.toThrow()
    const first = await post('/v1/swap', request)
    expect(first.status).toBe(200)
    expect(await post('/v1/swap', request)).toEqual(first)
    expect((await post('/v1/swap', `${request} `)).body['code']).toBe(11_003)
  })
})

describe('melt', () => {
  test('paying another quote of the mint settles both sides once and returns the fee reserve', async () => {
    const [payer, payee] = [await openWallet(), await openWallet()]
    const proofs = await fund(payer, 500)
    const target = await payee.createMintQuoteBolt11(200)
    const quote = await payer.createMeltQuoteBolt11(target.request)
    const second = await payer.createMeltQuoteBolt11(target.request)
    expect(quote.fee_reserve.toNumber()).toBe(2)
    const { keep, send } = await payer.send(quote.amount.add(quote.fee_reserve), proofs, { includeFees: true })
    const melted = await payer.meltProofsBolt11(quote, send)
    expect(melted.quote.state).toBe('PAID')
    const hash = decode(target.request).sections.find((s) => s.name === 'payment_hash')
    const preimage = Buffer.from(melted.quote.payment_preimage ?? '', 'hex')
    expect(createHash('sha256').update(preimage).digest('hex')).toBe(hash?.name === 'payment_hash' ? hash.value : undefined)
    expect(sum(melted.change)).toBe(sum(send) - 200 - payer.getFeesForProofs(send).toNumber())
    expect(sum(await payee.mintProofsBolt11(200, target))).toBe(200)
    await expect(payer.meltProofsBolt11(second, keep)).rejects.toMatchObject({ code: 20_006 })
    expect((await payer.checkProofsStates(keep)).every((state) => state.state === 'UNSPENT')).toBe(true)
    await expect(payer.createMeltQuoteBolt11(target.request)).rejects.toMatchObject({ code: 20_006 })
  })

  test('a foreign invoice cannot be paid: a clear error, and the proofs stay unspent', async () => {
    const other = await startSandbox()
    const [wallet, elsewhere] = [await openWallet(), await openWallet({}, other.mintUrl)]
    const proofs = await fund(wallet, 64)
    const quote = await wallet.createMeltQuoteBolt11((await elsewhere.createMintQuoteBolt11(10)).request)
    await expect(wallet.meltProofsBolt11(quote, proofs)).rejects.toMatchObject({ code: 20_004 })
    expect((await wallet.checkProofsStates(proofs)).every((state) => state.state === 'UNSPENT')).toBe(true)
    expect((await wallet.checkMeltQuoteBolt11(quote.quote)).state).toBe('UNPAID')
    await other.stop()
  })

  test('two mints pay parts of an invoice of a third (NUT-15): both, or neither', async () => {
    const boxes = [await startSandbox(), await startSandbox(), await startSandbox()]
    const [first, second, payee] = boxes.map((box) => box.mintUrl) as [string, string, string]
    for (const box of boxes) await box.faults({ peers: [first, second, payee].filter((url) => url !== box.mintUrl) })
    const target = await (await openWallet({}, payee)).createMintQuoteBolt11(100)
    const quoted = async (url: string, msats: number) => {
      const body = { request: target.request, unit: 'sat', options: { mpp: { amount: msats } } }
      return (await post('/v1/melt/quote/bolt11', body, url)).body as { quote: string; amount: number }
    }
    const part = async (url: string, { quote, amount }: { quote: string; amount: number }) => {
      const inputs = plain(await fund(await openWallet({}, url), amount + 16, url))
      return (await post('/v1/melt/bolt11', { quote, inputs }, url)).body
    }
    expect(await quoted(first, 60_500)).toMatchObject({ amount: 61 })
    expect(
      (await post('/v1/melt/quote/bolt11', { request: target.request, unit: 'sat', options: { mpp: { amount: 100_000 } } }, first)).body[
        'code'
      ],
    ).toBe(11_012)
    expect((await part(first, await quoted(first, 60_000)))['code']).toBe(20_004)
    const paid = await Promise.all([part(first, await quoted(first, 60_000)), part(second, await quoted(second, 40_000))])
    expect(paid).toMatchObject([{ state: 'PAID' }, { state: 'PAID' }])
    expect(paid[0]['payment_preimage']).toBe(paid[1]['payment_preimage'])
    for (const box of boxes) await box.stop()
  })

  test('too little for amount, reserve and fee is refused', async () => {
    const wallet = await openWallet()
    const target = await wallet.createMintQuoteBolt11(64)
    const quote = await wallet.createMeltQuoteBolt11(target.request)
    const inputs = plain(await fund(wallet, 64))
    expect((await post('/v1/melt/bolt11', { quote: quote.quote, inputs })).body['code']).toBe(11_005)
  })
})

test('everything is restored from the seed (NUT-09, NUT-13)', async () => {
  const seed = crypto.getRandomValues(new Uint8Array(64))
  const first = await openWallet({ bip39seed: seed })
  const proofs = await fund(first, 77)
  const { keep } = await first.send(10, proofs)
  const restored = await (await openWallet({ bip39seed: seed })).batchRestore()
  const { unspent } = await first.groupProofsByState(restored.proofs)
  expect(unspent.map((p) => p.secret)).toEqual(expect.arrayContaining(keep.map((p) => p.secret)))
})

test('after a key rotation old ecash is taken and new ecash is of the new keyset', async () => {
  const own = await startSandbox()
  const wallet = await openWallet({}, own.mintUrl)
  const proofs = await fund(wallet, 32, own.mintUrl)
  const { outputs } = (await wallet.prepareMint('bolt11', 31, { quote: 'none' })).payload
  await own.faults({ rotate_keyset: true })
  const stale = { inputs: plain(proofs), outputs: outputs.map((o) => ({ ...o, amount: Number(o.amount) })) }
  expect((await post('/v1/swap', stale, own.mintUrl)).body['code']).toBe(12_002)
  const fresh = await openWallet({}, own.mintUrl)
  await fresh.keyChain.ensureKeysetKeys(proofs[0]?.id ?? '')
  const received = await fresh.receive(proofs)
  expect(received.every((proof) => proof.id !== proofs[0]?.id)).toBe(true)
  await own.stop()
})

test('subscriptions tell the current state first, then each change (NUT-17)', async () => {
  const wallet = await openWallet()
  const quote = await wallet.createMintQuoteBolt11(16)
  const socket = new WebSocket(`${sandbox.mintUrl.replace('http', 'ws')}/v1/ws`)
  const received: Record<string, unknown>[] = []
  socket.on('message', (data) => received.push(JSON.parse(String(data))))
  await new Promise((resolve) => socket.once('open', resolve))
  const states = (subId: string) =>
    received
      .map((m) => m['params'] as { subId: string; payload: { state: string } } | undefined)
      .filter((p) => p?.subId === subId)
      .map((p) => p?.payload.state)
  const subscribe = (id: number, kind: string, subId: string, filters: string[]) =>
    socket.send(JSON.stringify({ jsonrpc: '2.0', id, method: 'subscribe', params: { kind, subId, filters } }))
  subscribe(1, 'bolt11_mint_quote', 'quote', [quote.quote])
  await expect.poll(() => states('quote')).toEqual(['UNPAID'])
  await pay(quote.request)
  const proofs = await wallet.mintProofsBolt11(16, quote)
  await expect.poll(() => states('quote')).toEqual(['UNPAID', 'PAID', 'ISSUED'])
  const [state] = await wallet.checkProofsStates(proofs)
  subscribe(2, 'proof_state', 'proof', [state?.Y ?? ''])
  await expect.poll(() => states('proof')).toEqual(['UNSPENT'])
  await wallet.receive(proofs)
  await expect.poll(() => states('proof')).toEqual(['UNSPENT', 'SPENT'])
  for (const garbage of ['', '{', '[]', 'null', '{"jsonrpc":"2.0","id":3,"method":"subscribe"}']) socket.send(garbage)
  await expect.poll(() => received.filter((m) => m['error'] !== undefined)).toHaveLength(5)
  socket.send(JSON.stringify({ jsonrpc: '2.0', id: 9, method: 'unsubscribe', params: { subId: 'quote' } }))
  await expect.poll(() => received.find((m) => m['id'] === 9)).toMatchObject({ result: { status: 'OK', subId: 'quote' } })
  socket.close()
})

test('a wallet of cashu-ts waits for the payment over its own websocket', async () => {
  const wallet = await openWallet()
  const quote = await wallet.createMintQuoteBolt11(4)
  const paid = wallet.on.onceMintPaid(quote.quote, { timeoutMs: 10_000 })
  await pay(quote.request)
  expect((await paid).state).toBe('PAID')
  wallet.mint.disconnectWebSocket()
})

test('info announces what is supported and GET /sandbox names the siblings', async () => {
  const info = (await openWallet()).getMintInfo()
  for (const nut of [7, 8, 9, 10, 11, 12, 20] as const) expect(info.isSupported(nut).supported).toBe(true)
  const document = await (await fetch(`${sandbox.mintUrl}/sandbox`)).json()
  expect(document).toMatchObject({ network: 'sandbox', relay_url: sandbox.relayUrl, lnurl_base_url: sandbox.lnurlBaseUrl })
})

test('hostile requests are answered and the mint goes on', async () => {
  const paths = [
    '/v1/swap',
    '/v1/mint/quote/bolt11',
    '/v1/mint/bolt11',
    '/v1/melt/quote/bolt11',
    '/v1/melt/bolt11',
    '/v1/checkstate',
    '/v1/restore',
    '/sandbox/pay',
    '/sandbox/faults',
  ]
  const bodies = [
    '',
    '{',
    'null',
    '[]',
    '7',
    '"x"',
    '{"inputs":{},"outputs":1}',
    '{"amount":1e400,"unit":"sat"}',
    '{"quote":[],"inputs":[{}],"outputs":[null]}',
    '{"Ys":["02zz"]}',
    '{"__proto__":{"x":1}}',
    '{"mint_down":"yes"}',
  ]
  for (const path of paths) for (const body of bodies) expect([400], `${path} ${body}`).toContain((await post(path, body)).status)
  const point = `02${'f'.repeat(64)}`
  const id = (await openWallet()).keysetId
  expect(
    (await post('/v1/swap', { inputs: [{ id, amount: 1, secret: 's', C: point }], outputs: [{ id, amount: 1, B_: point }] })).body['code'],
  ).toBe(10_000)
  expect(
    (await fetch(`${sandbox.mintUrl}/v1/swap`, { method: 'POST', body: 'x'.repeat(5 * 1024 * 1024) }).catch(() => ({ status: 413 })))
      .status,
  ).toBe(413)
  expect((await fetch(`${sandbox.mintUrl}/v1/keys/nonsense`)).status).toBe(400)
  expect((await fetch(`${sandbox.mintUrl}/%`)).status).toBe(404)
  expect(sum(await fund(await openWallet(), 5))).toBe(5)
})

test('what was committed survives an end without grace, and keys, quotes and answers are the same after it', async () => {
  const first = await startSandbox()
  const wallet = await openWallet({}, first.mintUrl)
  const proofs = await fund(wallet, 32, first.mintUrl)
  const open = await wallet.createMintQuoteBolt11(9)
  await pay(open.request, first.mintUrl)
  const { send } = await wallet.send(8, proofs)
  await first.stop({ keep: true })
  const second = await startSandbox({ dir: first.dir })
  expect(second.mintUrl).toBe(first.mintUrl)
  // The client's pool may still hold a connection to the sandbox that ended.
  await expect
    .poll(() =>
      fetch(`${second.mintUrl}/v1/info`)
        .then((r) => r.ok)
        .catch(() => false),
    )
    .toBe(true)
  const again = await openWallet({}, second.mintUrl)
  expect(again.keysetId).toBe(wallet.keysetId)
  await expect(again.receive(proofs)).rejects.toMatchObject({ code: 11_001 })
  expect(sum(await again.receive(send))).toBe(7)
  expect(sum(await again.mintProofsBolt11(9, open))).toBe(9)
  await second.stop()
})
