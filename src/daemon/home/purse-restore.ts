/**
 * The whole purse from the words alone: which agents there were, and at each mint what the wallets of node, customer and agents hold.
 * What cannot be read now stays noted, and is asked again by `pylon wallet restore` and by the next start.
 */
import type { WalletOwner } from '../../base/accounts.ts'
import { type Sats, sats } from '../../base/amounts.ts'
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { messageOf } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Scope } from '../../base/scope.ts'
import { adoptAgent } from '../../host/restored.ts'
import { FIRST_AGENT_ACCOUNT, type HomeKeyring } from '../../nostr/keys/keyring.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import type { Nostr } from '../../nostr/types.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'
import type { OwnWallets } from '../../wallet/wallets.ts'

export interface PurseDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly config: () => Config
  readonly keyring: HomeKeyring
  readonly wallets: OwnWallets
  readonly nostr: Pick<Nostr, 'query'>
  onProgress?(progress: PurseProgress): void
}

export type PurseProgress =
  | { readonly step: 'mint_read'; readonly mint_url: string; readonly restored_sats: Sats }
  | { readonly step: 'mint_failed'; readonly mint_url: string; readonly reason: string }
  | { readonly step: 'wallet_read'; readonly mint_url: string; readonly wallet: string; readonly restored_sats: Sats }
  | { readonly step: 'agent_found'; readonly agent: string; readonly npub: string }

export interface RestoredPurse {
  readonly restoredSats: Sats
  readonly agents: readonly { readonly name: string; readonly npub: string }[]
  /** Mints that could not be read, or not in time. */
  readonly unread: readonly { readonly url: string; readonly reason: string }[]
  /** What could not be read of those that were, each as a sentence. */
  readonly problems: readonly string[]
}

/** Setting: mints of the words' list that are not on ours yet. */
const WANTED_KEY = 'mints_to_restore'
/** For all that one mint is asked in each of the two rounds. */
const MINT_MS = 120_000
/** So many accounts in a row of which nobody knows end the search; agents that were deleted leave gaps. */
const GAP = 5
const MOST_AGENTS = 500
const PROFILES_AT_ONCE = 20

export const mintsToRestore = (store: Store): readonly string[] => getSetting<string[]>(store, WANTED_KEY) ?? []

/** @param urls of mints, those that are on the list too */
export async function restorePurse(deps: PurseDeps, urls: readonly string[]): Promise<RestoredPurse> {
  const { store, clock } = deps
  const want = (wanted: readonly string[]) => store.write(putSetting({ key: WANTED_KEY, value: wanted, at: clock.now() }))
  // Before anything is asked: whatever ends it, what was not read is still wanted.
  await want([...new Set([...mintsToRestore(store), ...urls])])
  const unread = new Map<string, string>()
  const listed = await Promise.all(urls.map((url) => atMint(deps, unread, url, () => list(deps, url))))
  const readable = urls.filter((_, i) => listed[i] === true)
  const accounts = await findAccounts(deps, readable, unread)
  const problems: string[] = []
  let restoredSats = 0n
  const owners = [ownerOf('node', deps.keyring.node().pubkey), ownerOf('customer', deps.keyring.customer().pubkey), ...accounts]
  for (const url of readable.filter((mint) => !unread.has(mint))) {
    const found = await atMint(deps, unread, url, () => restoreMint(deps, url, owners, problems))
    if (found === undefined) continue
    restoredSats += found
    deps.onProgress?.({ step: 'mint_read', mint_url: url, restored_sats: sats(found) })
  }
  const agents = await adoptAll(deps, accounts)
  await want(mintsToRestore(store).filter((url) => unread.has(url) || !urls.includes(url)))
  return { restoredSats: sats(restoredSats), agents, problems, unread: [...unread].map(([url, reason]) => ({ url, reason })) }
}

type Found = WalletOwner & { readonly accountIndex?: number; readonly name?: string | undefined }

const ownerOf = (kind: WalletOwner['kind'], pubkey: string): Found => ({ kind, pubkey })

/** Work with one mint, within its time. @returns undefined where that failed, which is noted and told */
async function atMint<T>(
  { scope, onProgress }: PurseDeps,
  unread: Map<string, string>,
  url: string,
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await scope.within(`restore at ${url}`, MINT_MS, work)
  } catch (error) {
    const reason = messageOf(error)
    unread.set(url, reason)
    onProgress?.({ step: 'mint_failed', mint_url: url, reason })
    return undefined
  }
}

async function list({ wallets }: PurseDeps, url: string): Promise<true> {
  if (!wallets.mints().some((mint) => mint.url === url)) await wallets.addMint(url)
  return true
}

/** Agents of these words: those whose profile a relay has, or for whom a mint has signed something; one account after the other. */
async function findAccounts(deps: PurseDeps, mints: readonly string[], unread: Map<string, string>): Promise<Found[]> {
  const { keyring, wallets, nostr } = deps
  const found: Found[] = []
  let names = new Map<string, string>()
  let last = FIRST_AGENT_ACCOUNT - 1
  for (let index = FIRST_AGENT_ACCOUNT; index <= Math.min(last + GAP, FIRST_AGENT_ACCOUNT + MOST_AGENTS); index++) {
    const { pubkey } = keyring.accountUnseen(index)
    if ((index - FIRST_AGENT_ACCOUNT) % PROFILES_AT_ONCE === 0) names = await namesOf(nostr, keyring, index)
    const owner = ownerOf('agent', pubkey)
    let isThere = names.has(pubkey)
    for (const url of mints.filter((mint) => !isThere && !unread.has(mint)))
      isThere = (await atMint(deps, unread, url, () => wallets.hasTraces(owner, url))) === true || isThere
    if (!isThere) continue
    last = index
    // From now on no new agent gets this account.
    keyring.account(index)
    found.push({ ...owner, accountIndex: index, name: names.get(pubkey) })
  }
  return found
}

/** Names in the profiles of some accounts from this one on, by key. */
async function namesOf(nostr: PurseDeps['nostr'], keyring: HomeKeyring, from: number): Promise<Map<string, string>> {
  const authors = Array.from({ length: PROFILES_AT_ONCE }, (_, i) => keyring.accountUnseen(from + i).pubkey)
  const { events } = await nostr.query([{ kinds: [0], authors, limit: authors.length }])
  return new Map(
    [...events]
      .sort((a, b) => a.created_at - b.created_at)
      .map((event) => {
        const name = (parseJson(event.content) as { name?: unknown } | null | undefined)?.name
        return [event.pubkey, typeof name === 'string' ? name : '']
      }),
  )
}

async function restoreMint(deps: PurseDeps, url: string, owners: readonly Found[], problems: string[]): Promise<bigint> {
  let total = 0n
  for (const owner of owners) {
    const { kind, pubkey } = owner
    const found = await deps.wallets.restoreAll({ kind, pubkey }, url)
    problems.push(...found.problems.map((problem) => `${url}: ${problem}`))
    total += found.foundSats
    if (found.foundSats > 0n)
      deps.onProgress?.({ step: 'wallet_read', mint_url: url, wallet: wordsFor(owner), restored_sats: found.foundSats })
  }
  return total
}

const wordsFor = ({ kind, name, accountIndex }: Found): string =>
  kind === 'agent' ? name || `agent of account ${accountIndex ?? ''}` : kind

/** Those with a profile or sats are agents again; others were deleted before. */
async function adoptAll(deps: PurseDeps, accounts: readonly Found[]): Promise<{ name: string; npub: string }[]> {
  const agents: { name: string; npub: string }[] = []
  for (const { kind, pubkey, accountIndex, name } of accounts) {
    if (accountIndex === undefined) continue
    if (name === undefined && deps.wallets.of({ kind, pubkey }).balance().balanceSats === 0n) continue
    const called = await adoptAgent(deps, { pubkey, accountIndex, name })
    if (called === undefined) continue
    const agent = { name: called, npub: npubOf(pubkey) }
    agents.push(agent)
    deps.onProgress?.({ step: 'agent_found', agent: agent.name, npub: agent.npub })
  }
  return agents
}
