/** Codecs: what we build we read back; what strangers send gives a value or a typed error, never anything else. */
import { hash } from 'node:crypto'
import fc from 'fast-check'
import { neventEncode, noteEncode, npubEncode } from 'nostr-tools/nip19'
import { describe, expect, it } from 'vitest'
import { type Msats, msats } from '../../../src/base/amounts.ts'
import { isPylonError, PylonError } from '../../../src/base/errors.ts'
import { identify, matchesFilter, parseEvent } from '../../../src/nostr/nips/nip01.ts'
import { openDm04 } from '../../../src/nostr/nips/nip04.ts'
import { replyTags } from '../../../src/nostr/nips/nip10.ts'
import { parseEventPointer, parsePubkey, parseSecret } from '../../../src/nostr/nips/nip19.ts'
import { expirationOf, isExpired } from '../../../src/nostr/nips/nip40.ts'
import {
  buildZapRequest,
  type ReceiptExpectation,
  type ReceiptInvoice,
  shareOut,
  validateReceipt,
  zapSplitsOf,
} from '../../../src/nostr/nips/nip57.ts'
import { buildDm17, unwrap } from '../../../src/nostr/nips/nip59.ts'
import { parseDmRelays, parseRelayList } from '../../../src/nostr/nips/nip65.ts'
import { type Announcement, buildAnnouncement, parseAnnouncement } from '../../../src/nostr/nips/nip89.ts'
import { buildCancel, buildJobRequest, cancelledIds, type JobInput, type JobParam, parseJobRequest } from '../../../src/nostr/nips/nip90.ts'
import { buildFeedback, buildResult, parseFeedback, parseResult } from '../../../src/nostr/nips/nip90-answers.ts'
import { buildHttpAuth } from '../../../src/nostr/nips/nip98.ts'
import { parseProfile } from '../../../src/nostr/reading/directory.ts'
import { createVerifier } from '../../../src/nostr/reading/verify.ts'
import { parseFrame } from '../../../src/nostr/relay/frames.ts'
import { NO_LIMITS, parseLimits } from '../../../src/nostr/relay/relay-info.ts'
import { relayUrls, tryRelayUrl } from '../../../src/nostr/relay/relay-url.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { dmRelaysWith, refundFeedback, relayListWith } from '../../support/nostr-events.ts'
import { testSigner } from '../../support/test-signer.ts'

const [customer, provider, stranger] = [testSigner(1), testSigner(2), testSigner(3)]
const verifier = createVerifier()
const NOW_S = 1_750_000_000

const someText = fc.string({ minLength: 1, maxLength: 200, unit: 'binary' }).filter((text) => text.isWellFormed())
const id = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString('hex'))
const amount: fc.Arbitrary<Msats> = fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }).map(msats)
const relay = fc
  .webAuthority({ withPort: true })
  .map((host) => `wss://${host}`)
  .map(tryRelayUrl)
  .filter((url) => url !== undefined)
const input: fc.Arbitrary<JobInput> = fc.oneof(
  fc.record({ data: someText, type: fc.constantFrom('text' as const, 'url' as const) }),
  fc.record({ data: id, type: fc.constantFrom('event' as const, 'job' as const), relay }),
)
const param: fc.Arbitrary<JobParam> = fc
  .tuple(fc.string({ minLength: 1, maxLength: 20 }), fc.array(someText, { maxLength: 3 }))
  .map(([name, values]) => [name, ...values])

const signed = (signer: typeof customer, template: Parameters<typeof customer.sign>[0]): NostrEvent =>
  parseEvent(JSON.parse(JSON.stringify(signer.sign(template))))

describe('a job request', () => {
  it('is read back as it was built, open and encrypted', async () => {
    const fields = fc.record(
      {
        kind: fc.integer({ min: 5000, max: 5999 }),
        inputs: fc.array(input, { maxLength: 5 }),
        params: fc.array(param, { maxLength: 5 }),
        output: fc.string({ minLength: 1, maxLength: 40 }),
        bidMsats: amount,
        relays: fc.uniqueArray(relay, { maxLength: 4 }),
        expiresAtS: fc.integer({ min: 1, max: 2 ** 40 }),
        cashuToken: fc.base64String({ minLength: 4, maxLength: 200 }),
        createdAtS: fc.integer({ min: 0, max: 2 ** 40 }),
        scheme: fc.constantFrom('nip44' as const, 'nip04' as const, undefined),
      },
      { requiredKeys: ['kind', 'inputs', 'createdAtS', 'scheme', 'params', 'relays'] },
    )
    await fc.assert(
      fc.asyncProperty(fields, async ({ scheme, ...job }) => {
        const event = signed(
          customer,
          buildJobRequest({
            random: customer.random,
            ...job,
            provider: provider.pubkey,
            ...(scheme === undefined ? {} : { encryptBy: { signer: customer, scheme } }),
          }),
        )
        if (scheme !== undefined) {
          expect(event.tags.filter((tag) => ['i', 'param', 'cashu'].includes(tag[0] ?? ''))).toEqual([])
          await expect(parseJobRequest(event)).rejects.toMatchObject({ code: 'decrypt_failed' })
        }
        expect(await parseJobRequest(event, provider)).toEqual({
          id: event.id,
          kind: job.kind,
          customer: customer.pubkey,
          createdAtS: job.createdAtS,
          inputs: job.inputs,
          params: job.params,
          output: job.output,
          bidMsats: job.bidMsats,
          relays: job.relays,
          providers: [provider.pubkey],
          expiresAtS: job.expiresAtS,
          cashuToken: job.cashuToken,
          encryption: scheme,
        })
      }),
      { numRuns: 60 },
    )
  })

  const request = (tags: string[][], kind = 5050) => signed(customer, { kind, created_at: NOW_S, tags, content: '' })
  it.each<[string, string[][], string]>([
    ['an empty input', [['i']], 'input_invalid'],
    ['an unknown input type', [['i', 'x', 'picture']], 'input_invalid'],
    ['an event input that is no id', [['i', 'note1xyz', 'event']], 'input_invalid'],
    ['too many inputs', Array.from({ length: 33 }, () => ['i', 'x', 'text']), 'input_invalid'],
    ['a nameless param', [['param']], 'param_invalid'],
    ['too many params', Array.from({ length: 65 }, (_, at) => ['param', `p${at}`, 'x']), 'param_invalid'],
    ['a bid that is no number', [['bid', '12.5']], 'amount_invalid'],
    ['a negative bid', [['bid', '-1']], 'amount_invalid'],
    ['a bid past all bitcoin', [['bid', '9'.repeat(16)]], 'amount_invalid'],
    ['an output that is no type', [['output', 'x'.repeat(1000)]], 'param_invalid'],
    ['a token too long', [['cashu', 'x'.repeat(65_537).slice(0, 65_536), '']], 'token_ok'],
  ])('with %s has a typed error', async (_name, tags, code) => {
    if (code === 'token_ok') expect((await parseJobRequest(request(tags))).cashuToken?.length).toBe(65_536)
    else await expect(parseJobRequest(request(tags))).rejects.toMatchObject({ code })
  })

  it('reads forms that others use', async () => {
    const id = 'ab'.repeat(32)
    const note = noteEncode(id)
    const nevent = neventEncode({ id, relays: ['wss://hint.example'] })
    const read = (tags: string[][]) => parseJobRequest(request(tags))
    expect((await read([['i', 'hello', 'prompt']])).inputs).toEqual([{ type: 'text', data: 'hello' }])
    expect((await read([['i', 'hello', 'Text']])).inputs).toEqual([{ type: 'text', data: 'hello' }])
    for (const type of ['event', 'job'] as const) {
      for (const form of [id, id.toUpperCase(), note, `nostr:${note}`])
        expect((await read([['i', form, type]])).inputs).toEqual([{ type, data: id }])
      expect((await read([['i', nevent, type]])).inputs).toEqual([{ type, data: id, relay: 'wss://hint.example' }])
      expect((await read([['i', `nostr:${nevent}`, type, 'wss://own.example']])).inputs).toEqual([
        { type, data: id, relay: 'wss://own.example' },
      ])
    }
    expect((await read([['bid', '5000.0']])).bidMsats).toBe(5000n)
    expect((await read([['bid', ' 5000 ']])).bidMsats).toBe(5000n)
    expect((await read([['relays', 'wss://a.example,wss://b.example']])).relays).toEqual(['wss://a.example', 'wss://b.example'])
    expect((await read([['relays']])).relays).toEqual([])
    expect((await read([['p', npubEncode(id)]])).providers).toEqual([id])
    expect((await read([['i', 'x'.repeat(250_000), 'text']])).inputs[0]?.data).toHaveLength(250_000)
  })

  it('takes text for the type of an input that names none, and bounds relays', async () => {
    const many = Array.from({ length: 50 }, (_, at) => `wss://r${at}.example`)
    expect(
      await parseJobRequest(
        request([
          ['i', 'hello'],
          ['relays', 'http://x', ...many],
        ]),
      ),
    ).toMatchObject({
      inputs: [{ data: 'hello', type: 'text' }],
      relays: many.slice(0, 9),
    })
  })

  it('is cancelled by its id', () => {
    const job = request([])
    expect(cancelledIds(signed(customer, buildCancel(job, NOW_S)))).toEqual([job.id])
    expect(cancelledIds(job)).toEqual([])
  })
})

describe('an answer', () => {
  const request = signed(
    customer,
    buildJobRequest({ kind: 5001, inputs: [{ data: 'text', type: 'text' }], createdAtS: NOW_S, random: customer.random }),
  )

  it('is read back as it was built', () => {
    const fields = fc.record({
      status: fc.constantFrom('payment-required' as const, 'processing' as const, 'error' as const, 'success' as const, 'partial' as const),
      extra: someText,
      price: fc.record({
        amountMsats: amount,
        bolt11: fc.string({ minLength: 1, maxLength: 40, unit: fc.constantFrom('l', 'n', 'b', 'c', '1') }),
      }),
      content: someText,
      scheme: fc.constantFrom('nip44' as const, 'nip04' as const, undefined),
    })
    fc.assert(
      fc.property(fields, ({ status, extra, price, content, scheme }) => {
        const encrypt = scheme === undefined ? {} : { encrypt: { signer: provider, scheme } }
        const feedback = signed(provider, buildFeedback({ request, status, extra, price, content, createdAtS: NOW_S, ...encrypt }))
        const shared = { provider: provider.pubkey, requestId: request.id, customer: customer.pubkey, ...price, content, unreadable: false }
        expect(parseFeedback(feedback, customer)).toMatchObject({ ...shared, status, extra, refundToken: undefined })
        const result = signed(provider, buildResult({ request, content, price, createdAtS: NOW_S, ...encrypt }))
        expect(parseResult(result, customer)).toMatchObject({ ...shared, kind: 6001 })
        expect(result.tags).toContainEqual(['request', JSON.stringify(request)])
        expect(result.tags.some((tag) => tag[0] === 'i')).toBe(scheme === undefined)
        if (scheme !== undefined) {
          expect(parseResult(result)).toMatchObject({ unreadable: true })
          // NIP-04 has no authentication: a wrong key gives garbage now and then.
          if (scheme === 'nip44') expect(parseResult(result, stranger)).toMatchObject({ unreadable: true, content: result.content })
        }
      }),
      { numRuns: 60 },
    )
  })

  it('that refunds shows its token to the customer alone', () => {
    const refund = signed(
      provider,
      refundFeedback({ request, signer: provider, error: 'backend failed', token: 'cashuBsecret', createdAtS: NOW_S }),
    )
    expect(JSON.stringify(refund)).not.toContain('cashuBsecret')
    expect(refund).toMatchObject({ kind: 7000 })
    expect(refund.tags).toEqual(
      expect.arrayContaining([
        ['e', request.id],
        ['p', customer.pubkey],
      ]),
    )
    expect(parseFeedback(refund, customer)).toMatchObject({ status: 'error', refundToken: 'cashuBsecret' })
    expect(parseFeedback(refund, stranger)).toMatchObject({ status: 'error', refundToken: undefined, unreadable: true })
  })

  it('of other software is read leniently', () => {
    const odd = (status: string[]) =>
      signed(provider, {
        kind: 7000,
        created_at: NOW_S,
        tags: [status, ['e', request.id], ['amount', '1000', 'lightning:lnbc1']],
        content: '',
      })
    expect(parseFeedback(odd(['status', 'payment_required']))).toMatchObject({ status: 'payment-required', bolt11: 'lnbc1' })
    expect(parseFeedback(odd(['status', 'subscription-required']))).toMatchObject({ status: 'unknown' })
    expect(parseFeedback(odd(['x']))).toMatchObject({ status: 'unknown' })
  })
})

describe('announcements and relay lists', () => {
  it('are read back as they were built', () => {
    const announcement = fc.record({
      d: someText,
      kinds: fc.uniqueArray(fc.integer({ min: 5000, max: 5999 }), { maxLength: 10 }),
      name: someText,
      about: someText,
      mints: fc.array(fc.record({ url: fc.constantFrom('https://mint.example', 'http://127.0.0.1:3338/x'), unit: fc.constant('sat') }), {
        maxLength: 3,
      }),
      lockPubkey: id.map((hex) => `02${hex}`),
      pricing: fc.dictionary(
        fc.integer({ min: 5000, max: 5999 }).map(String),
        fc.record({ amountMsats: amount, unit: fc.constantFrom('job', '1k_chars') }),
      ),
    })
    fc.assert(
      fc.property(announcement, (made: Announcement) => {
        const read = parseAnnouncement(signed(provider, buildAnnouncement(made, NOW_S)))
        expect({ ...read, pricing: { ...read.pricing } }).toEqual({ ...made, pricing: { ...made.pricing } })
      }),
    )
    fc.assert(
      fc.property(fc.uniqueArray(relay, { maxLength: 5 }), (relays) => {
        expect(parseRelayList(relayListWith(relays, NOW_S))).toEqual({ read: relays, write: relays })
        expect(parseDmRelays(dmRelaysWith(relays, NOW_S))).toEqual(relays)
      }),
    )
    const marked = { tags: [['r', 'wss://a', 'read'], ['r', 'wss://b/', 'write'], ['r', 'ws://C/x/'], ['r', 'nonsense'], ['r']] }
    expect(parseRelayList(marked)).toEqual({ read: ['wss://a', 'ws://c/x'], write: ['wss://b', 'ws://c/x'] })
  })
})

describe('a zap receipt', () => {
  const lnurlKey = testSigner(9)
  const job = 'ab'.repeat(32)
  const expected: ReceiptExpectation = {
    recipient: provider.pubkey,
    providerPubkey: lnurlKey.pubkey,
    eventId: job,
    minMsats: msats(1000),
    notBeforeS: NOW_S,
  }

  function receipt(
    change: {
      request?: (event: NostrEvent) => NostrEvent
      tags?: (tags: string[][]) => string[][]
      by?: typeof customer
      createdAt?: number
    } = {},
  ): NostrEvent {
    const template = buildZapRequest({
      recipient: provider.pubkey,
      amountMsats: msats(1000),
      relays: ['wss://a'],
      lnurl: 'lnurl1x',
      event: { id: job, kind: 7000 },
      comment: 'thanks',
      createdAtS: NOW_S,
      random: customer.random,
    })
    const request = customer.sign(template)
    const description = JSON.stringify(change.request?.(request) ?? request)
    const tags = [
      ['p', provider.pubkey],
      ['e', job],
      ['bolt11', 'lnbc10n1'],
      ['description', description],
    ]
    return (change.by ?? lnurlKey).sign({
      kind: 9735,
      created_at: change.createdAt ?? NOW_S + 5,
      tags: change.tags?.(tags) ?? tags,
      content: '',
    })
  }
  const check = (event: NostrEvent, invoice: Partial<ReceiptInvoice> = {}, more: Partial<ReceiptExpectation> = {}) =>
    validateReceipt(event, { ...expected, ...more }, verifier, () => ({ amountMsats: 1000n, ...invoice }))
  const resign = (change: Partial<NostrEvent>) => (event: NostrEvent) => customer.sign({ ...event, ...change })

  it('is believed when everything fits', () => {
    expect(check(receipt())).toMatchObject({ ok: true, amountMsats: 1000n, sender: customer.pubkey, comment: 'thanks', eventId: job })
  })

  it.each<[string, () => ReturnType<typeof check>]>([
    ['signed by anyone else', () => check(receipt({ by: customer }))],
    ['of a forged request', () => check(receipt({ request: (event) => ({ ...event, content: 'changed' }) }))],
    ['of a request of another kind', () => check(receipt({ request: resign({ kind: 1 }) }))],
    ['without a request', () => check(receipt({ tags: (tags) => tags.filter((tag) => tag[0] !== 'description') }))],
    ['for someone else', () => check(receipt(), {}, { recipient: stranger.pubkey })],
    [
      'with two recipients',
      () => check(receipt({ request: (event) => customer.sign({ ...event, tags: [...event.tags, ['p', stranger.pubkey]] }) })),
    ],
    [
      'with another p outside',
      () => check(receipt({ tags: (tags) => tags.map((tag) => (tag[0] === 'p' ? ['p', stranger.pubkey] : tag)) })),
    ],
    ['for another event', () => check(receipt(), {}, { eventId: 'cd'.repeat(32) })],
    [
      'with another e outside',
      () => check(receipt({ tags: (tags) => tags.map((tag) => (tag[0] === 'e' ? ['e', 'cd'.repeat(32)] : tag)) })),
    ],
    ['with another amount than asked', () => check(receipt(), { amountMsats: 2000n })],
    ['without an amount', () => check(receipt(), { amountMsats: undefined })],
    ['worth too little', () => check(receipt(), {}, { minMsats: msats(1001) })],
    ['older than the quote', () => check(receipt({ createdAt: NOW_S - 1 }))],
  ])('is not believed %s', (_name, run) => {
    expect(run()).toMatchObject({ ok: false })
  })
})

describe('small codecs', () => {
  it('thread replies', () => {
    const root = signed(customer, { kind: 1, created_at: 1, tags: [], content: 'root' })
    const reply = signed(provider, { kind: 1, created_at: 2, tags: replyTags(root, provider.pubkey), content: 'reply' })
    const second = signed(stranger, { kind: 1, created_at: 3, tags: replyTags(reply, stranger.pubkey), content: 'second' })
    const marked = ({ tags }: NostrEvent, mark: string) => tags.find((tag) => tag[3] === mark)?.[1]
    expect([marked(reply, 'root'), marked(reply, 'reply')]).toEqual([root.id, undefined])
    expect([marked(second, 'root'), marked(second, 'reply')]).toEqual([root.id, reply.id])
    expect(new Set(second.tags.filter((tag) => tag[0] === 'p').map((tag) => tag[1]))).toEqual(new Set([provider.pubkey, customer.pubkey]))
  })

  it('expire at their second', () => {
    expect(isExpired({ tags: [['expiration', '100']] }, 99)).toBe(false)
    expect(isExpired({ tags: [['expiration', '100']] }, 100)).toBe(true)
    expect(expirationOf({ tags: [['expiration', 'soon']] })).toBeUndefined()
  })

  it('sign HTTP requests', async () => {
    const header = await buildHttpAuth(customer, { url: 'https://x.example/a?b=1', method: 'post', body: '{}', nowS: NOW_S })
    const event = parseEvent(JSON.parse(Buffer.from(header.slice('Nostr '.length), 'base64').toString()))
    expect(verifier.verify(event)).toBe(true)
    expect(event).toMatchObject({
      kind: 27235,
      tags: [
        ['u', 'https://x.example/a?b=1'],
        ['method', 'POST'],
        ['payload', hash('sha256', '{}')],
        ['salt', expect.any(String)],
      ],
    })
  })

  it('match filters as relays do', () => {
    const event = { ...identify(customer.pubkey, { kind: 1, created_at: 10, tags: [['t', 'a'], ['t', 'b'], ['p']], content: '' }) }
    expect(matchesFilter({ kinds: [1], '#t': ['b'], since: 10, until: 10, authors: [customer.pubkey], ids: [event.id] }, event)).toBe(true)
    for (const filter of [{ kinds: [2] }, { '#t': ['c'] }, { '#p': ['x'] }, { since: 11 }, { until: 9 }, { ids: [] }, { authors: [] }])
      expect(matchesFilter(filter, event)).toBe(false)
  })
})

describe('whatever a stranger sends', () => {
  const tag = fc.oneof(
    fc.array(fc.string(), { minLength: 1, maxLength: 5 }),
    fc
      .tuple(
        fc.constantFrom(
          'i',
          'param',
          'bid',
          'relays',
          'p',
          'e',
          'status',
          'amount',
          'encrypted',
          'expiration',
          'cashu',
          'd',
          'k',
          'mint',
          'description',
          'bolt11',
          'r',
          'relay',
        ),
        fc.oneof(fc.string(), id, fc.json()),
      )
      .map((pair) => [...pair]),
  )
  const event = fc.record({
    kind: fc.oneof(fc.integer({ min: 0, max: 65_535 }), fc.constantFrom(4, 0, 5050, 6050, 7000, 9735, 10_002, 31_990, 1059)),
    created_at: fc.nat(),
    tags: fc.array(tag, { maxLength: 8 }),
    content: fc.oneof(
      fc.string(),
      fc.json(),
      fc.base64String(),
      fc.string().map((text) => `${Buffer.from(text).toString('base64')}?iv=AAAAAAAAAAAAAAAAAAAAAA==`),
    ),
  })

  async function typed(run: () => unknown): Promise<void> {
    try {
      await run()
    } catch (error) {
      if (!isPylonError(error) || error.code === 'internal') throw new Error('an untyped error', { cause: error })
    }
  }

  it('gives a value or a typed error', async () => {
    await fc.assert(
      fc.asyncProperty(event, async (template) => {
        const received = stranger.sign(template)
        await typed(() => parseJobRequest(received, provider))
        await typed(() => parseFeedback(received, customer))
        await typed(() => parseResult(received, customer))
        await typed(() => parseAnnouncement(received))
        await typed(() => unwrap(provider, received, verifier))
        await typed(() => openDm04(provider, received))
        parseRelayList(received)
        parseDmRelays(received)
        parseProfile(received.content)
        replyTags(received, customer.pubkey)
        validateReceipt(received, { recipient: provider.pubkey, providerPubkey: stranger.pubkey }, verifier, () => undefined)
      }),
      { numRuns: 300 },
    )
  })

  it('is no event unless it is exactly one', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        expect(() => parseEvent(value)).toThrow(PylonError)
      }),
    )
    const good = JSON.parse(JSON.stringify(customer.sign({ kind: 1, created_at: 1, tags: [['t', 'x']], content: '' }))) as Record<
      string,
      unknown
    >
    expect(parseEvent({ ...good, extra: 1 })).toEqual(good)
    const bad: Record<string, unknown[]> = {
      id: ['', 'X'.repeat(64), 'A'.repeat(64), 1, null],
      pubkey: ['', 'g'.repeat(64)],
      created_at: [-1, 1.5, '1', Number.MAX_VALUE, null],
      kind: [-1, 65_536, 1.5, '1'],
      tags: [null, {}, [[]], [['a', 1]], ['a'], [[null]], Array.from({ length: 2001 }, () => ['t']), [['t', 'x'.repeat(2_097_153)]]],
      content: [null, 1, 'x'.repeat(2_097_153)],
      sig: ['', 'A'.repeat(128), null],
    }
    for (const [field, values] of Object.entries(bad))
      for (const value of values) expect(() => parseEvent({ ...good, [field]: value })).toThrow(PylonError)
  })

  it('is a frame, a limit, a URL or a key, or it is not', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.anything().map((value) => String(JSON.stringify(value))),
        ),
        async (text) => {
          parseFrame(text)
          parseFrame(`["EVENT",${text}]`)
          parseFrame(`["OK",${text}]`)
          tryRelayUrl(text)
          relayUrls([text, undefined, `wss://${text}`])
          await typed(() => parsePubkey(text))
          await typed(() => parseSecret(text))
          await typed(() => parseEventPointer(text))
        },
      ),
      { numRuns: 500 },
    )
    fc.assert(fc.property(fc.anything(), (value) => void parseLimits(value)))
    // What is given without a limit says nothing of what is given with one.
    expect(parseLimits({ supported_nips: [1, 77], limitation: { max_limit: 500, default_limit: 100, max_message_length: 1000 } })).toEqual({
      ...NO_LIMITS,
      maxLimit: 500,
      maxMessageLength: 1000,
      negentropy: true,
    })
  })
})

describe('NIP-17', () => {
  it('carries any text', async () => {
    await fc.assert(
      fc.asyncProperty(someText, async (text) => {
        const { wraps, rumor } = await buildDm17(customer, [provider.pubkey], text, NOW_S)
        const wrap = wraps[0]?.event
        expect(wrap === undefined ? undefined : await unwrap(provider, wrap, verifier)).toEqual(rumor)
      }),
      { numRuns: 20 },
    )
  })
})

describe('the shares of a zap', () => {
  const weights = fc.array(fc.record({ pubkey: id, weight: fc.double({ min: 0.001, max: 1000, noNaN: true }) }), {
    minLength: 1,
    maxLength: 10,
  })

  it('are all of it, each within a sat of its weight, and the same again', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 10n ** 9n }), weights, (amountSats, splits) => {
        const shares = shareOut(amountSats, splits)
        expect(shares.reduce((sum, share) => sum + share, 0n)).toBe(amountSats)
        expect(shareOut(amountSats, splits)).toEqual(shares)
        const total = splits.reduce((sum, { weight }) => sum + weight, 0)
        for (const [place, share] of shares.entries()) {
          const exact = (Number(amountSats) * (splits[place]?.weight ?? 0)) / total
          expect(Math.abs(Number(share) - exact)).toBeLessThan(1 + Number(amountSats) / 1000)
        }
      }),
    )
  })

  it('are by weight, equal where none has one, and nothing where only some have', () => {
    const [a, b] = [customer.pubkey, provider.pubkey]
    expect(
      zapSplitsOf({
        tags: [
          ['zap', a, '', '1'],
          ['zap', b, '', '3'],
          ['zap', 'junk', '', '9'],
        ],
      }),
    ).toEqual([
      { pubkey: a, weight: 1 },
      { pubkey: b, weight: 3 },
    ])
    expect(
      zapSplitsOf({
        tags: [
          ['zap', a],
          ['zap', b, 'wss://r'],
        ],
      }),
    ).toEqual([
      { pubkey: a, weight: 1 },
      { pubkey: b, weight: 1 },
    ])
    expect(
      zapSplitsOf({
        tags: [
          ['zap', a, '', '2'],
          ['zap', b, ''],
        ],
      }),
    ).toEqual([{ pubkey: a, weight: 2 }])
    expect(
      shareOut(10n, [
        { pubkey: a, weight: 1 },
        { pubkey: b, weight: 1 },
        { pubkey: a, weight: 1 },
      ]),
    ).toEqual([4n, 3n, 3n])
  })
})
