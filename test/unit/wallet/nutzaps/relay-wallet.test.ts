/** What of a wallet's events on relays stands (NIP-60), whatever relays have kept of it. */
import { encrypt, getConversationKey } from 'nostr-tools/nip44'
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { expect, it } from 'vitest'
import { createSigner } from '../../../../src/nostr/keys/signer.ts'
import { readRelayWallet } from '../../../../src/wallet/nutzaps/relay-wallet.ts'

const secret = generateSecretKey()
const pubkey = getPublicKey(secret)
const signer = createSigner(new Uint8Array(secret))
const conversation = getConversationKey(secret, pubkey)
const proof = (n: number) => ({ id: '00aabbccddeeff00', amount: 8, secret: `secret ${n}`, C: `02${'ab'.repeat(32)}` })
const signed = (kind: number, content: string, tags: string[][] = [], created_at = 1_700_000_000, key = secret) =>
  finalizeEvent({ kind, content, tags, created_at }, key)
const token = (proofs: unknown[], { at = 1_700_000_000, del = [] as unknown[], mint = 'https://Mint.example.com/' } = {}) =>
  signed(7375, encrypt(JSON.stringify({ mint, proofs, del }), conversation), [], at)
const secrets = async (events: Parameters<typeof readRelayWallet>[1]) =>
  (await readRelayWallet(signer, events)).coins.map((coin) => coin.secret).sort()

it('leaves out what was deleted (NIP-09) and what was rolled over, also where relays kept it', async () => {
  const [a, b, c] = [token([proof(1)]), token([proof(2)]), token([proof(3)])]
  expect(await secrets([a, b, c])).toEqual(['secret 1', 'secret 2', 'secret 3'])
  expect(
    await secrets([
      a,
      b,
      c,
      signed(5, '', [
        ['e', a.id],
        ['k', '7375'],
      ]),
    ]),
  ).toEqual(['secret 2', 'secret 3'])
  // Not by somebody else's word.
  expect(await secrets([a, signed(5, '', [['e', a.id]], 1_700_000_001, generateSecretKey())])).toEqual(['secret 1'])
  // One that was rolled over by one that was deleted since is still gone; its coin that rolled on is there.
  const next = token([proof(2)], { del: [a.id, b.id] })
  expect(await secrets([a, b, next])).toEqual(['secret 2'])
  expect(await secrets([a, b, next, signed(5, '', [['e', next.id]])])).toEqual([])
  // The newest of two has the word, and each coin is there once.
  const other = token([{ ...proof(1), amount: 16 }], { at: 1_700_000_009, mint: 'https://mint.example.com' })
  const { coins } = await readRelayWallet(signer, [a, other])
  expect(coins).toEqual([{ ...proof(1), amount: 16, mintUrl: 'https://mint.example.com' }])
})

it('reads the keys of all versions of the wallet, and no key that is none', async () => {
  const [one, two] = [generateSecretKey(), generateSecretKey()].map((key) => Buffer.from(key).toString('hex'))
  const wallet = (tags: unknown, at: number) => signed(17_375, encrypt(JSON.stringify(tags), conversation), [], at)
  const { keys, mints } = await readRelayWallet(signer, [
    wallet(
      [
        ['privkey', one],
        ['mint', 'https://a.example'],
      ],
      1_700_000_000,
    ),
    wallet(
      [['privkey', two], ['privkey', 'ff'.repeat(32)], ['privkey', 'no'], ['mint', 'https://b.example'], ['mint'], 5, null],
      1_700_000_005,
    ),
    signed(17_375, 'garbage'),
    wallet({ privkey: one }, 1_700_000_009),
  ])
  expect(keys.map((key) => key.pubkey)).toEqual([pubkey, ...[two, one].map((hex) => getPublicKey(Buffer.from(hex ?? '', 'hex')))])
  expect(mints).toEqual(['https://b.example'])
})

it('bounds what it reads, says what it left out, and lets others run meanwhile', async () => {
  const events = Array.from({ length: 5200 }, (_, i) => {
    const content = encrypt(JSON.stringify({ mint: 'https://mint.example.com', proofs: [proof(i), proof(i % 100)] }), conversation)
    return { id: i.toString(16).padStart(64, '0'), pubkey, kind: 7375, created_at: 1_700_000_000 + i, tags: [], content, sig: '' }
  })
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const { tokens, coins, problems } = await readRelayWallet(signer, events)
  clearInterval(timer)
  expect(tokens).toHaveLength(5000)
  expect(coins).toHaveLength(5100)
  expect(problems).toEqual(['The oldest events are not read: there are more than 5000.'])
  expect(turns).toBeGreaterThan(10)
})
