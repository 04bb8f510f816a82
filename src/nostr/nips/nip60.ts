/** NIP-60: a Cashu wallet as its owner's other programs can read it on relays: the wallet (17375), its proofs (7375), its history (7376). */
import type { EventTemplate } from '../types.ts'

const WALLET_KIND = 17_375
export const WALLET_TOKEN_KIND = 7375
const WALLET_HISTORY_KIND = 7376

/** Encrypts to the key itself, as all contents here are. */
type Seal = (plaintext: string) => string

interface WalletEvent {
  /** Opens what is locked to the wallet (NIP-61): 64 hex digits, never the Nostr secret. Absent in wallets that take no nutzaps. */
  readonly privkey?: string
  readonly mints: readonly string[]
}

/** A proof as Cashu writes it (NUT-00). */
interface WalletProof {
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

export const buildWallet = ({ privkey, mints }: WalletEvent, createdAtS: number, seal: Seal): EventTemplate => ({
  kind: WALLET_KIND,
  created_at: createdAtS,
  tags: [],
  content: seal(JSON.stringify([...(privkey === undefined ? [] : [['privkey', privkey]]), ...mints.map((url) => ['mint', url])])),
})

export const buildWalletToken = (token: WalletToken, createdAtS: number, seal: Seal): EventTemplate => ({
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
