/** Accounts of the ledger, `<owner>/<class>/<detail>`: the one place that puts such a name together or takes it apart. */
import { PylonError } from './errors.ts'

/** A wallet belongs to one Nostr key of this home. */
export interface WalletOwner {
  readonly kind: 'node' | 'customer' | 'agent'
  readonly pubkey: string
}

/** Whose account it is, as the ledger names the owner of a wallet. */
export type AccountOwner = 'node' | 'customer' | `agent:${string}`

/** What is held (`wallet`, `held`), what is owed (`deposit`), what came, went, and what the home's owner put in or took out. */
export type AccountClass = 'wallet' | 'held' | 'income' | 'deposit' | 'expense' | 'equity'

export type Account = `${AccountOwner}/${AccountClass}/${string}`

const FORM = /^(node|customer|agent:[0-9a-f]{64})\/(wallet|held|income|deposit|expense|equity)\/(.+)$/

export const accountOwner = (owner: WalletOwner): AccountOwner => (owner.kind === 'agent' ? agentOwner(owner.pubkey) : owner.kind)

export const agentOwner = (pubkey: string): AccountOwner => `agent:${pubkey}`

/** The key of the agent that owns an account; undefined where another does. */
export const agentOf = (owner: string): string | undefined => /^agent:(.+)$/.exec(owner)?.[1]

export const accountOf = (owner: AccountOwner, accountClass: AccountClass, detail: string): Account => `${owner}/${accountClass}/${detail}`

/** @throws internal where the name has not the form of an account */
export function parseAccount(name: string): { readonly owner: AccountOwner; readonly class: AccountClass; readonly detail: string } {
  const [, owner, accountClass, detail] = FORM.exec(name) ?? []
  if (detail === undefined) throw new PylonError('internal', `The ledger has no account of the form ${name}.`)
  return { owner: owner as AccountOwner, class: accountClass as AccountClass, detail }
}

const NWC = 'nwc:'

/** The detail of the account that has what passed through a Lightning wallet of the owner's elsewhere; others of its class are mints. */
export const nwcDetail = (walletId: string): string => `${NWC}${walletId}`

export const isNwcDetail = (detail: string): boolean => detail.startsWith(NWC)

/** In SQL: whether a detail is that of a mint. @param detail an expression, never a value */
export const isMintSql = (detail: string): string => `${detail} NOT GLOB '${NWC}*'`
