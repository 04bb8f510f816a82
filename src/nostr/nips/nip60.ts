/** NIP-60: a Cashu wallet as its owner's other programs can read it on relays: the wallet (17375), its proofs (7375), its history (7376). */
import { isRecord, parseJson } from '../../base/json.ts'
import type { EventTemplate } from '../types.ts'
import { isHex64 } from './nip01.ts'

export const WALLET_KIND = 17_375
export const WALLET_TOKEN_KIND = 7375
export const WALLET_HISTORY_KIND = 7376

/** Of one list that is read. */
const MAX_MINTS = 100
const MAX_PROOFS = 1000
const MAX_URL_CHARS = 2048

/** Encrypts to the key itself, as all contents here are. */
export type Seal = (plaintext: string) => string

export interface WalletEvent {
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

export interface WalletToken {
  readonly mintUrl: string
  readonly unit: string
  readonly proofs: readonly WalletProof[]
  /** Ids of token events that this one replaces. */
  readonly del: readonly string[]
}

export interface WalletHistory {
  readonly direction: 'in' | 'out'
  readonly amountSats: bigint
  /** Ids of token events (7375). */
  readonly created?: readonly string[]
  readonly destroyed?: readonly string[]
  /** Nutzaps (9321) that this was the redeeming of, and who sent them; in the clear. */
  readonly redeemed?: readonly { readonly id: string; readonly sender: string; readonly relay?: string }[]
}

export const buildWallet = ({ privkey, mints }: WalletEvent, createdAtS: number, seal: Seal): EventTemplate => ({
  kind: WALLET_KIND,
  created_at: createdAtS,
  tags: [],
  content: seal(JSON.stringify([...(privkey === undefined ? [] : [['privkey', privkey]]), ...mints.map((url) => ['mint', url])])),
})

export const buildWalletToken = (token: Omit<WalletToken, 'unit'>, createdAtS: number, seal: Seal): EventTemplate => ({
  kind: WALLET_TOKEN_KIND,
  created_at: createdAtS,
  tags: [],
  content: seal(JSON.stringify({ mint: token.mintUrl, unit: 'sat', proofs: token.proofs, del: token.del })),
})

export function buildWalletHistory(history: WalletHistory, createdAtS: number, seal: Seal): EventTemplate {
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
    content: seal(JSON.stringify(hidden)),
  }
}

/** Of an opened 17375; undefined for what is none. */
export function parseWallet(plaintext: string): WalletEvent | undefined {
  const tags = parseJson(plaintext)
  if (!Array.isArray(tags)) return undefined
  const valuesOf = (name: string) =>
    tags.flatMap((tag) => (Array.isArray(tag) && tag[0] === name && typeof tag[1] === 'string' ? [tag[1]] : []))
  const privkey = valuesOf('privkey').find(isHex64)
  const mints = valuesOf('mint')
    .filter((url) => url.length <= MAX_URL_CHARS && URL.canParse(url))
    .slice(0, MAX_MINTS)
  return mints.length === 0 ? undefined : { ...(privkey === undefined ? {} : { privkey }), mints: [...new Set(mints)] }
}

/** Of an opened 7375; undefined for what is none. Proofs that are none are left out. */
export function parseWalletToken(plaintext: string): WalletToken | undefined {
  const token = parseJson(plaintext)
  if (!isRecord(token)) return undefined
  const { mint, unit = 'sat', proofs, del = [] } = token
  if (typeof mint !== 'string' || mint.length > MAX_URL_CHARS || !URL.canParse(mint)) return undefined
  if (typeof unit !== 'string' || !Array.isArray(proofs) || proofs.length > MAX_PROOFS) return undefined
  const read = proofs.flatMap((proof) => parseProof(proof) ?? [])
  return { mintUrl: mint, unit, proofs: read, del: Array.isArray(del) ? del.filter(isHex64).slice(0, MAX_PROOFS) : [] }
}

function parseProof(value: unknown): WalletProof | undefined {
  if (!isRecord(value)) return undefined
  const { id, amount, secret, C } = value
  if (typeof id !== 'string' || typeof secret !== 'string' || typeof C !== 'string') return undefined
  if (typeof amount !== 'number' || !Number.isSafeInteger(amount) || amount <= 0) return undefined
  return { id, amount, secret, C }
}
