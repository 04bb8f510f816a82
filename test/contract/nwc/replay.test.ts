/** A request over NIP-47 is done once: played again, from another relay or after a restart, and whatever commit the wallet dies at. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { sats } from '../../../src/base/amounts.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { tagValue } from '../../../src/nostr/nips/nip01.ts'
import {
  buildNwcRequest,
  formatNwcUri,
  NWC_METHODS,
  NWC_RESPONSE_KIND,
  type NwcResponse,
  openNwcResponse,
  parseNwcUri,
} from '../../../src/nostr/nips/nip47.ts'
import type { LocalSigner, NostrEvent } from '../../../src/nostr/types.ts'
import { auditLedger } from '../../../src/store/money/ledger.ts'
import { getNwcRequest } from '../../../src/store/money/nwc-service.ts'
import { Death } from '../../support/death.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { publishTo } from '../../support/publish.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { fund, ownerCause } from '../wallet/home.ts'
import { HomeOnDisk, type NwcHome } from './home.ts'

let sandbox: TestSandbox
/** The relay as who asks sees it. */
let outside: TestNostr

beforeAll(async () => {
  sandbox = await startSandbox()
  outside = startNostr({ relays: [sandbox.relayUrl] })
})
afterAll(async () => {
  await outside.stop()
  await sandbox.stop()
})

/** A program elsewhere, which keeps all that it is told. */
class Asker {
  readonly answers: NostrEvent[] = []
  readonly #signer: LocalSigner
  readonly walletPubkey: string

  constructor(url: string) {
    const { secret, walletPubkey } = parseNwcUri(url)
    this.#signer = createSigner(new Uint8Array(Buffer.from(secret, 'hex')))
    this.walletPubkey = walletPubkey
  }

  async listen(): Promise<this> {
    await outside.nostr.listen({
      filters: [{ kinds: [NWC_RESPONSE_KIND], '#p': [this.#signer.pubkey] }],
      onEvent: (event) => this.answers.push(event),
    })
    return this
  }

  request(method: string, params: Record<string, unknown>, createdAtS = Math.floor(Date.now() / 1000)): NostrEvent {
    const options = { encryption: 'nip44_v2' as const, createdAtS, expiresAtS: Math.floor(Date.now() / 1000) + 600 }
    return this.#signer.sign(buildNwcRequest(this.#signer, this.walletPubkey, { method, params }, options))
  }

  answerTo(request: NostrEvent): NwcResponse | undefined {
    const found = this.answers.find((event) => tagValue(event, 'e') === request.id)
    return found === undefined ? undefined : openNwcResponse(this.#signer, found)
  }

  /** @returns the answer, once it has come */
  answered(request: NostrEvent): Promise<NwcResponse> {
    return vi.waitFor(
      () => {
        const answer = this.answerTo(request)
        if (answer === undefined) throw new Error('no answer yet')
        return answer
      },
      { timeout: 15_000, interval: 20 },
    )
  }
}

const publish = (event: NostrEvent) => publishTo(sandbox.relayUrl, event)

const order = (home: NwcHome, key: string) => ({
  ...{ key, owner: home.node.owner, name: 'test', budget: { sats: sats(1000), per: 'day' as const } },
  ...{ methods: NWC_METHODS, expiresAt: null },
})

const somebodysInvoice = async (home: NwcHome, key: string, amount: number): Promise<string> =>
  (
    await home.customer.createInvoice({
      ...{ idempotencyKey: key, cause: ownerCause(), amountSats: sats(amount), creditAccount: 'customer/equity/funding' },
    })
  ).request

/** What left the node's wallet for invoices, by the books. */
const withdrawnSats = ({ store }: NwcHome): bigint => {
  const row = store.sql(`SELECT coalesce(sum(amount_msats), 0) AS total FROM postings WHERE account = 'node/equity/withdrawal'`).get()
  return BigInt(String(row?.['total'] ?? 0)) / 1000n
}

describe('a request that is played again', () => {
  it('pays once and is answered the same, in one process and after a restart', async () => {
    using disk = new HomeOnDisk()
    let home = await disk.open(sandbox)
    await fund(home, home.node, sandbox.mintUrl, 300)
    const { url } = await home.service.create(order(home, 'replay'))
    const asker = await new Asker(url).listen()
    const request = asker.request('pay_invoice', { invoice: await somebodysInvoice(home, 'once', 50) })
    await publish(request)
    const first = await asker.answered(request)
    expect(first.result?.['preimage']).toMatch(/^[0-9a-f]{64}$/)
    await Promise.all([publish(request), publish(request)])
    const fresh = asker.request('get_balance', {})
    await publish(fresh)
    await asker.answered(fresh)
    expect(getNwcRequest(home.store, request.id)?.sends).toBe(1)
    await home.close()
    home = await disk.open(sandbox)
    // The answer was lost: who asks again long after gets the same event.
    home.store.sql('UPDATE nwc_requests SET sent_at = 0').run()
    const later = await new Asker(url).listen()
    await publish(request)
    expect(await later.answered(request)).toEqual(first)
    expect(later.answers.map(({ id }) => id)).toEqual([asker.answers.find((event) => tagValue(event, 'e') === request.id)?.id])
    expect(withdrawnSats(home)).toBe(50n)
    expect(auditLedger(home.store).problems).toEqual([])
    await home.close()
  })

  it('to another connection, or late, is refused and does nothing', async () => {
    using disk = new HomeOnDisk()
    const home = await disk.open(sandbox)
    await fund(home, home.node, sandbox.mintUrl, 300)
    const asker = await new Asker((await home.service.create(order(home, 'mine'))).url).listen()
    const invoice = await somebodysInvoice(home, 'late', 50)
    const late = asker.request('pay_invoice', { invoice }, Math.floor(Date.now() / 1000) - 400)
    await publish(late)
    // A relay may give it though we did not ask for what is so old: it is not heard, or refused.
    const other = await home.service.create(order(home, 'other'))
    const toOther = asker.request('pay_invoice', { invoice })
    const { id: _id, sig: _sig, ...moved } = toOther
    await publish({ ...moved, id: toOther.id, sig: toOther.sig, tags: [['p', other.connection.servicePubkey]] })
    const fresh = asker.request('get_balance', {})
    await publish(fresh)
    expect((await asker.answered(fresh)).result).toEqual({ balance: 300_000 })
    expect(asker.answerTo(late)?.result).toBeUndefined()
    expect(getNwcRequest(home.store, toOther.id)).toBeUndefined()
    expect(withdrawnSats(home)).toBe(0n)
    await home.close()
  })
})

describe('a wallet that dies at a commit', () => {
  const labels = [
    'claim_nwc_request',
    'hold_nwc_spend',
    'insert_operation',
    'move_operation:submitted',
    'move_operation:completed',
    'answer_nwc_request',
  ]
  const deaths = labels.flatMap((label) => [
    { label, before: true },
    { label, before: false },
  ])

  it.each(deaths)('$label (before it: $before) pays once and answers once', async ({ label, before }) => {
    using disk = new HomeOnDisk()
    const first = await disk.open(sandbox)
    await fund(first, first.node, sandbox.mintUrl, 300)
    const { url } = await first.service.create(order(first, 'kill'))
    const asker = await new Asker(url).listen()
    const request = asker.request('pay_invoice', { invoice: await somebodysInvoice(first, 'killed', 50) })
    await first.close()
    const death = new Death(label, { before })
    const dying = await disk.open(sandbox, death)
    await publish(request)
    await vi.waitFor(() => expect(death.isDead).toBe(true), { timeout: 15_000, interval: 10 })
    await dying.close().catch(() => {})
    const again = await disk.open(sandbox)
    // Relays keep no such events: where it was not claimed the client asks again with the same.
    if (getNwcRequest(again.store, request.id) === undefined) await publish(request)
    const answer = await asker.answered(request)
    expect(answer.error).toBeUndefined()
    expect(withdrawnSats(again)).toBe(50n)
    expect(new Set(asker.answers.map(({ id }) => id)).size).toBe(1)
    expect(getNwcRequest(again.store, request.id)?.spend?.state).toBe('spent')
    expect(auditLedger(again.store).problems).toEqual([])
    await again.close()
  })
})

describe('a request that is refused, where the wallet dies as soon as it is claimed', () => {
  it.each([
    ['of a key that has no wallet here', 'UNAUTHORIZED'],
    ['for what the connection may not do', 'RESTRICTED'],
  ])('%s is not done after the restart either', async (_what, code) => {
    using disk = new HomeOnDisk()
    const first = await disk.open(sandbox)
    await fund(first, first.node, sandbox.mintUrl, 300)
    const methods = ['get_balance'] as const
    const { url } = await first.service.create({ ...order(first, 'refused'), methods: code === 'RESTRICTED' ? methods : NWC_METHODS })
    const strangers = formatNwcUri({ ...parseNwcUri(url), secret: '0f'.repeat(32) })
    const asker = await new Asker(code === 'UNAUTHORIZED' ? strangers : url).listen()
    const request = asker.request('pay_invoice', { invoice: await somebodysInvoice(first, 'refused', 50) })
    await first.close()
    const death = new Death((label) => label.endsWith('_nwc_request'))
    const dying = await disk.open(sandbox, death)
    await publish(request)
    await vi.waitFor(() => expect(death.isDead).toBe(true), { timeout: 15_000, interval: 10 })
    await dying.close().catch(() => {})
    const again = await disk.open(sandbox)
    expect((await asker.answered(request)).error?.code).toBe(code)
    expect(withdrawnSats(again)).toBe(0n)
    await again.close()
  })
})
