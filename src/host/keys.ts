/** Keys of agents: given out, taken from elsewhere, and given away with all that goes with them. */
import { isPylonError, PylonError } from '../base/errors.ts'
import { given } from '../base/given.ts'
import { createSigner } from '../nostr/keys/signer.ts'
import { parseSecret } from '../nostr/nips/nip19.ts'
import { parseBunkerUri } from '../nostr/nips/nip46.ts'
import type { Signer } from '../nostr/types.ts'
import { type AgentRow, wasAgent } from '../store/agents/agents.ts'
import { type HostDeps, ownerOf } from './parts.ts'

/** The key of a new agent: the next account, or what was given. @throws locked, identity_invalid, agent_exists */
export async function keyFor(
  deps: Pick<HostDeps, 'keyring' | 'store'>,
  imported: string | undefined,
): Promise<{ signer: Signer; accountIndex: number | null }> {
  const { keyring, store } = deps
  if (imported === undefined) {
    const accountIndex = keyring.nextAccount()
    return { signer: keyring.account(accountIndex), accountIndex }
  }
  try {
    return { signer: await keyring.importKey(imported), accountIndex: null }
  } catch (error) {
    if (!isPylonError(error, 'agent_exists')) throw error
    // The key is here: an import that a crash cut short before there was an agent is completed.
    const pubkey = createSigner(parseSecret(nsecIn(imported))).pubkey
    const isOurs = pubkey === keyring.node().pubkey || pubkey === keyring.customer().pubkey
    if (isOurs || wasAgent(store, pubkey)) throw error
    return { signer: keyring.signer(pubkey), accountIndex: null }
  }
}

/**
 * The key of a new agent that a bunker holds, with the wallet of the next account of these words. The same string again, after
 * something cut the first try short, is the same key.
 * @throws locked, bunker_invalid, agent_exists, bunker_unreachable, bunker_refused, bunker_approval, bunker_answer_invalid
 */
export async function remoteKeyFor(
  { keyring, store, remoteKeys }: Pick<HostDeps, 'keyring' | 'store' | 'remoteKeys'>,
  text: string,
): Promise<{ signer: Signer; accountIndex: null }> {
  if (remoteKeys === undefined) throw new PylonError('conflict', 'This node cannot ask bunkers now: pylon status says why.')
  const bunker = parseBunkerUri(text)
  const pubkey = await remoteKeys.connect(bunker)
  if (wasAgent(store, pubkey)) throw new PylonError('agent_exists', 'This home has, or had, an agent of the key that the bunker signs for.')
  if (pubkey === keyring.node().pubkey)
    throw new PylonError('agent_exists', 'The bunker signs for the key of this node, which is no agent.')
  const known = keyring.remotes().some((remote) => remote.pubkey === pubkey)
  if (keyring.owns(pubkey) && !known) throw new PylonError('agent_exists', 'This home holds the key itself that the bunker signs for.')
  const walletAccount = keyring.nextAccount()
  // From now on no other agent gets this account.
  if (!known) keyring.account(walletAccount)
  const signer = await keyring.keepRemote(pubkey, bunker, walletAccount)
  remoteKeys.watch(pubkey)
  return { signer, accountIndex: null }
}

/** The nsec of what was given as import: the text itself, or that of a bundle, whose shape was checked before. */
function nsecIn(imported: string): string {
  if (!imported.trimStart().startsWith('{')) return imported
  return String((JSON.parse(imported) as { nsec?: unknown }).nsec)
}

/** @throws locked */
export function bundleOf(deps: Pick<HostDeps, 'keyring' | 'wallets'>, agent: AgentRow) {
  const { pubkey, nsec, wallet_seed } = deps.keyring.exportKey(agent.pubkey)
  const { mints } = deps.wallets.of(ownerOf(agent)).balance()
  const { picture, nip05, lud16 } = agent.profile
  return {
    version: 1 as const,
    pubkey,
    npub: agent.npub,
    nsec,
    /** 128 hex digits, NUT-13. */
    wallet_seed,
    mints: mints.map((mint) => mint.url),
    name: agent.name,
    about: agent.about,
    brain: agent.brain,
    relays: agent.relays,
    heartbeat_s: agent.heartbeatS,
    autonomy: agent.autonomy,
    dm_scheme: agent.dmScheme,
    budget: agent.budget,
    allow: agent.allow,
    tick_fee_sats: agent.tickFeeSats,
    // What the owner set of the profile beside name and about.
    ...given({ picture: picture || undefined, nip05: nip05 || undefined, lud16: lud16 || undefined }),
  }
}
