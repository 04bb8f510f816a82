/** NIP-60: a Cashu wallet as its owner's other programs can read it on relays: the wallet (17375), its proofs (7375), its history (7376). */
import { isRecord, parseJson } from '../../base/json.ts'
import type { Awaitable, EventTemplate } from '../types.ts'
import { isHex64 } from './nip01.ts'

export const WALLET_KIND = 17_375
export const WALLET_TOKEN_KIND = 7375
const WALLET_HISTORY_KIND = 7376

/** Encrypts to the key itself, as all contents here are. */
type Seal = (plaintext: string) => Awaitable<string>

interface WalletEvent {
  /** Opens what is locked to the wallet (NIP-61): 64 hex digits, never the Nostr secret. Absent in wallets that take no nutzaps. */
  readonly privkey?: string
  readonly mints: readonly string[]
}

/** A proof as Cashu writes it (NUT-00). */
export interface WalletProof {
  readonly id: string
  readonly amount: number
  readonly secret: string
  readonly C: string
}

interface WalletToken {
  readonly mintUrl: string
  readonly proofs: readonly WalletProof[]
  /** Ids of token events that this one replaces. */
  readonly del: readonly string[]
}

interface WalletHistory {
  readonly direction: 'in' | 'out'
  readonly amountSats: bigint
  /** Ids of token events (7375). */
  readonly created?: readonly string[]
  readonly destroyed?: readonly string[]
  /** Nutzaps (9321) that this was the redeeming of, and who sent them; in the clear. */
  readonly redeemed?: readonly { readonly id: string; readonly sender: string; readonly relay?: string }[]
}

export const buildWallet = async ({ privkey, mints }: WalletEvent, createdAtS: number, seal: Seal): Promise<EventTemplate> => ({
  kind: WALLET_KIND,
  created_at: createdAtS,
  tags: [],
  content: await seal(JSON.stringify([...(privkey === undefined ? [] : [['privkey', privkey]]), ...mints.map((url) => ['mint', url])])),
})

export const buildWalletToken = async (token: WalletToken, createdAtS: number, seal: Seal): Promise<EventTemplate> => ({
  kind: WALLET_TOKEN_KIND,
  created_at: createdAtS,
  tags: [],
  content: await seal(JSON.stringify({ mint: token.mintUrl, unit: 'sat', proofs: token.proofs, del: token.del })),
})

export async function buildWalletHistory(history: WalletHistory, createdAtS: number, seal: Seal): Promise<EventTemplate> {
  const { direction, amountSats, created = [], destroyed = [], redeemed = [] } = history
  const hidden = [
    ['direction', direction],
    ['amount', amountSats.toString()],
    ['unit', 'sat'],
    ...created.map((id) => ['e', id, '', 'created']),
    ...destroyed.map((id) => ['e', id, '', 'destroyed']),
  ]
  const senders = [...new Set(redeemed.map(({ sender }) => sender))]
  return {
    kind: WALLET_HISTORY_KIND,
    created_at: createdAtS,
    tags: [...redeemed.map(({ id, relay = '' }) => ['e', id, relay, 'redeemed']), ...senders.map((sender) => ['p', sender])],
    content: await seal(JSON.stringify(hidden)),
  }
}

/** Of one event that is read: what is more is no wallet of a person. */
const MAX_MINTS = 100
const MAX_KEYS = 10
const MAX_PROOFS = 1000
const MAX_DEL = 1000
const MAX_URL_CHARS = 2048
const MAX_SECRET_CHARS = 1024

/** What a wallet event says. @param content decrypted @returns undefined where it is none */
export function parseWallet(content: string): { readonly privkeys: readonly string[]; readonly mints: readonly string[] } | undefined {
  const tags = parseJson(content)
  if (!Array.isArray(tags)) return undefined
  const named = (name: string) =>
    tags.flatMap((tag: unknown) => (Array.isArray(tag) && tag[0] === name && typeof tag[1] === 'string' ? [tag[1]] : []))
  const privkeys = named('privkey').map((key) => key.toLowerCase())
  return {
    privkeys: [...new Set(privkeys.filter(isHex64))].slice(0, MAX_KEYS),
    mints: [...new Set(named('mint'))].filter((url) => url.length <= MAX_URL_CHARS).slice(0, MAX_MINTS),
  }
}

export interface ReadWalletToken {
  readonly mintUrl: string
  readonly unit: string
  /** Those that have the shape of one. */
  readonly proofs: readonly WalletProof[]
  /** How many have not. */
  readonly malformed: number
  readonly del: readonly string[]
}

/** What a token event says. @param content decrypted @returns undefined where it is none */
export function parseWalletToken(content: string): ReadWalletToken | undefined {
  const said = parseJson(content)
  if (!isRecord(said)) return undefined
  const { mint, unit = 'sat', proofs, del = [] } = said
  if (typeof mint !== 'string' || mint.length > MAX_URL_CHARS || typeof unit !== 'string' || !Array.isArray(proofs)) return undefined
  const read = proofs.slice(0, MAX_PROOFS).flatMap((proof: unknown) => proofIn(proof) ?? [])
  const replaced = Array.isArray(del) ? del.slice(0, MAX_DEL).filter(isHex64) : []
  return { mintUrl: mint, unit: unit.slice(0, 20), proofs: read, malformed: proofs.length - read.length, del: replaced }
}

function proofIn(value: unknown): WalletProof | undefined {
  if (!isRecord(value)) return undefined
  const { id, secret, C } = value
  // Some libraries write amounts beyond an int as text.
  const amount = typeof value['amount'] === 'string' && /^\d{1,16}$/.test(value['amount']) ? Number(value['amount']) : value['amount']
  if (typeof id !== 'string' || !/^(?:[0-9a-f]{16}|[0-9a-f]{66})$/.test(id)) return undefined
  if (typeof secret !== 'string' || secret === '' || secret.length > MAX_SECRET_CHARS) return undefined
  if (typeof C !== 'string' || !/^0[23][0-9a-f]{64}$/i.test(C)) return undefined
  if (typeof amount !== 'number' || !Number.isSafeInteger(amount) || amount <= 0) return undefined
  return { id, amount, secret, C: C.toLowerCase() }
}
