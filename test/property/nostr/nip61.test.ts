/** Nutzaps and the wallet events of NIP-60: what we write we read; what strangers send is a value or a reason. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { buildWallet, buildWalletHistory, buildWalletToken } from '../../../src/nostr/nips/nip60.ts'
import {
  buildNutzap,
  MAX_NUTZAP_PROOFS,
  type Nutzap,
  type NutzapProof,
  nutzapInfoTags,
  parseNutzap,
  parseNutzapInfo,
} from '../../../src/nostr/nips/nip61.ts'
import { testSigner } from '../../support/test-signer.ts'

const me = testSigner(1)
const seal = (plaintext: string) => me.nip44Encrypt(me.pubkey, plaintext)
const open = (content: string) => me.nip44Decrypt(me.pubkey, content)

const hex = (bytes: number) => fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((data) => Buffer.from(data).toString('hex'))
const url = fc.webUrl({ validSchemes: ['https'] }).filter((text) => text.length < 300)
const words = fc.string({ maxLength: 100, unit: 'binary' }).filter((text) => text.isWellFormed())
const proof: fc.Arbitrary<NutzapProof> = fc.record({
  id: fc.oneof(hex(8), hex(33)),
  amount: fc.integer({ min: 1, max: 2 ** 40 }),
  secret: fc.string({ minLength: 1, maxLength: 200 }),
  C: hex(32).map((x) => `02${x}`),
  dleq: fc.record({ e: hex(32), s: hex(32), r: hex(32) }),
})
const nutzap: fc.Arbitrary<Nutzap> = fc.record(
  {
    recipient: hex(32),
    mintUrl: url,
    proofs: fc.uniqueArray(proof, { minLength: 1, maxLength: 5, selector: ({ secret }) => secret }),
    comment: words,
    event: fc.record({ id: hex(32), kind: fc.integer({ min: 0, max: 65_535 }) }),
  },
  { requiredKeys: ['recipient', 'mintUrl', 'proofs', 'comment'] },
)

describe('nutzaps', () => {
  it('are read as they were written', () => {
    fc.assert(
      fc.property(nutzap, (zap) => {
        expect(parseNutzap(buildNutzap(zap, 1_750_000_000))).toEqual(zap)
      }),
    )
  })

  it('of strangers are a value or a reason, whatever stands in their tags', () => {
    const tag = fc
      .tuple(fc.constantFrom('proof', 'u', 'p', 'e', 'k', 'unit'), fc.oneof(fc.json(), hex(32), url))
      .map((parts): string[] => parts)
    fc.assert(
      fc.property(fc.array(tag, { maxLength: 20 }), words, (tags, content) => {
        const read = parseNutzap({ kind: 9321, tags, content })
        if (typeof read === 'object') expect(read.proofs.length).toBeGreaterThan(0)
      }),
    )
  })

  it.each<[string, (zap: Nutzap) => Partial<Nutzap> | string[][], RegExp]>([
    ['for two keys', () => [['p', '11'.repeat(32)]], /one key/],
    ['of two mints', () => [['u', 'https://b.example']], /one mint/],
    ['in dollars', () => [['unit', 'usd']], /sats/],
    ['without proofs', () => ({ proofs: [] }), /0 proofs/],
    ['with too many proofs', ({ proofs }) => ({ proofs: Array(MAX_NUTZAP_PROOFS + 1).fill(proofs[0]) }), /101 proofs/],
    ['with one proof twice', ({ proofs }) => ({ proofs: [...proofs, ...proofs] }), /twice/],
    [
      'for two events',
      () => [
        ['e', '22'.repeat(32)],
        ['e', '33'.repeat(32)],
      ],
      /more than one event/,
    ],
    ['with a proof that is huge', () => [['proof', JSON.stringify({ id: 'x'.repeat(4000) })]], /fair length/],
    ['with a proof of no amount', ({ proofs }) => ({ proofs: [{ ...(proofs[0] as NutzapProof), amount: -1 }] }), /out of range/],
    ['without DLEQ', ({ proofs }) => [['proof', JSON.stringify({ ...proofs[0], secret: 'another', dleq: undefined })]], /DLEQ/],
  ])('%s are none', (_, change, reason) => {
    const [zap] = fc.sample(nutzap, { numRuns: 1, seed: 7 })
    if (zap === undefined) throw new Error('nothing was sampled')
    const changed = change(zap)
    const event = buildNutzap(Array.isArray(changed) ? zap : { ...zap, ...changed }, 1)
    const tags = Array.isArray(changed) ? [...changed, ...event.tags] : event.tags
    expect(parseNutzap({ ...event, tags })).toMatch(reason)
  })

  it('are taken as their key says, which is never the Nostr key', () => {
    const info = { relays: ['wss://a.example'], mints: ['https://m.example/Bitcoin'], lockPubkey: '11'.repeat(32) }
    const said = { pubkey: me.pubkey, tags: nutzapInfoTags(info) }
    expect(parseNutzapInfo(said)).toEqual({ ...info, mints: [{ url: 'https://m.example/Bitcoin', units: ['sat'] }] })
    const withKey = (key: string) => ({ ...said, tags: said.tags.map((tag) => (tag[0] === 'pubkey' ? ['pubkey', key] : tag)) })
    expect(parseNutzapInfo(withKey(`02${info.lockPubkey}`))?.lockPubkey).toBe(info.lockPubkey)
    expect(parseNutzapInfo(withKey(me.pubkey))).toBeUndefined()
    expect(parseNutzapInfo(withKey('junk'))).toBeUndefined()
    expect(parseNutzapInfo({ ...said, tags: said.tags.filter(([name]) => name !== 'mint') })).toBeUndefined()
  })
})

describe('the events of a wallet', () => {
  it('open for their key as they were written', async () => {
    const wallet = { privkey: '22'.repeat(32), mints: ['https://a.example', 'https://b.example'] }
    expect(JSON.parse(open((await buildWallet(wallet, 1, seal)).content))).toEqual([
      ['privkey', wallet.privkey],
      ['mint', 'https://a.example'],
      ['mint', 'https://b.example'],
    ])
    const token = { mintUrl: 'https://a.example', proofs: [{ id: '00aa', amount: 4, secret: 's', C: '02' }], del: ['33'.repeat(32)] }
    const { mintUrl: mint, ...rest } = token
    expect(JSON.parse(open((await buildWalletToken(token, 1, seal)).content))).toEqual({ mint, unit: 'sat', ...rest })
    const history = {
      direction: 'in' as const,
      amountSats: 4n,
      created: ['44'.repeat(32)],
      redeemed: [{ id: '55'.repeat(32), sender: me.pubkey }],
    }
    const event = await buildWalletHistory(history, 1, seal)
    expect(event.tags).toEqual([
      ['e', '55'.repeat(32), '', 'redeemed'],
      ['p', me.pubkey],
    ])
    expect(JSON.parse(open(event.content))).toEqual([
      ['direction', 'in'],
      ['amount', '4'],
      ['unit', 'sat'],
      ['e', '44'.repeat(32), '', 'created'],
    ])
  })
})
