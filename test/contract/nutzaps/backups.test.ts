/** The wallets of a home on relays (NIP-60): what another program of its owner reads there is what is held. */
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { WalletBackups } from '../../../src/wallet/nutzaps/backups.ts'
import { startNostr, type TestNostr } from '../../support/nostr-node.ts'
import { startSandbox, type TestSandbox } from '../../support/sandbox.ts'
import { testScope } from '../../support/scope.ts'
import { fund } from '../wallet/home.ts'
import { HomeOnDisk, type NutzapHome, proofsFor } from './home.ts'

let sandbox: TestSandbox
let outside: TestNostr
let home: NutzapHome
const disk = new HomeOnDisk()

beforeAll(async () => {
  sandbox = await startSandbox()
  outside = startNostr({ relays: [sandbox.relayUrl] })
  home = await disk.open(sandbox)
})
afterAll(async () => {
  await home.close()
  await outside.stop()
  await sandbox.stop()
  disk[Symbol.dispose]()
})

const backups = (nip60: boolean) => {
  const { store, keyring, nostr, wallets } = home
  const config = { ...DEFAULT_CONFIG, wallet: { ...DEFAULT_CONFIG.wallet, nip60 } }
  const scope = testScope()
  return new WalletBackups({ scope, store, keyring, nostr, wallets, clock: scope.clock, config: () => config })
}

const on = async (kinds: number[]): Promise<NostrEvent[]> =>
  (await outside.nostr.query([{ kinds, authors: [home.node.owner.pubkey] }])).events

/** As a program that has the key alone. */
const open = (event: NostrEvent) =>
  JSON.parse(home.keyring.localSigner(home.node.owner.pubkey).nip44Decrypt(event.pubkey, event.content)) as unknown

interface Token {
  mint: string
  unit: string
  proofs: { amount: number; secret: string; C: string; id: string }[]
  del: string[]
}
const tokens = async () => (await on([7375])).map((event) => ({ id: event.id, ...(open(event) as Token) }))
const worth = (found: readonly Token[]) => found.flatMap(({ proofs }) => proofs).reduce((sum, { amount }) => sum + amount, 0)

it('follow what is held, say what they replace, and go when they are not wanted any more', async () => {
  await fund(home, home.node, sandbox.mintUrl, 300)
  await backups(false).publish()
  expect(home.store.sql("SELECT 1 FROM outbox_messages WHERE key LIKE 'nip60%'").get()).toBeUndefined()
  await backups(true).publish()
  const first = await vi.waitFor(async () => {
    const found = await tokens()
    expect(worth(found)).toBe(300)
    return found
  }, 10_000)
  expect(first).toMatchObject([{ mint: sandbox.mintUrl, unit: 'sat', del: [] }])
  const [wallet] = await on([17_375])
  const [[name, privkey = ''] = [], mint] = open(wallet as NostrEvent) as string[][]
  expect([name, mint]).toEqual(['privkey', ['mint', sandbox.mintUrl]])
  expect(`02${createSigner(new Uint8Array(Buffer.from(privkey, 'hex'))).pubkey}`).toBe(home.node.lockPubkey)
  // Nothing changed: nothing is said.
  const said = home.store.sql("SELECT count(*) AS n FROM outbox_messages WHERE key LIKE 'nip60%'").get()
  await backups(true).publish()
  expect(home.store.sql("SELECT count(*) AS n FROM outbox_messages WHERE key LIKE 'nip60%'").get()).toEqual(said)

  await proofsFor(home, 50, { lockTo: home.agent.lockPubkey })
  await backups(true).publish()
  const held = Number(home.node.balance().balanceSats)
  const second = await vi.waitFor(async () => {
    const found = (await tokens()).filter(({ id }) => first.every((old) => old.id !== id))
    expect(worth(found)).toBe(held)
    return found
  }, 10_000)
  expect(second[0]?.del).toEqual(first.map(({ id }) => id))
  const deletion = await vi.waitFor(async () => {
    const found = await on([5])
    expect(found).toHaveLength(1)
    return found[0]
  }, 10_000)
  expect(deletion?.tags).toEqual([...first.map(({ id }) => ['e', id]), ['k', '7375']])
  const history = (await on([7376])).map((event) => open(event) as string[][])
  expect(history).toContainEqual([
    ['direction', 'out'],
    ['amount', String(300 - held)],
    ['unit', 'sat'],
    ...second.map(({ id }) => ['e', id, '', 'created']),
    ...first.map(({ id }) => ['e', id, '', 'destroyed']),
  ])

  await backups(false).publish()
  await vi.waitFor(async () => expect((await on([5])).flatMap(({ tags }) => tags)).toContainEqual(['e', second[0]?.id]), 10_000)
})
