/** Handlers of the routes about the Lightning addresses of this home. */
import type { WalletOwner } from '../../base/accounts.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import type { addressRoutes } from '../../control/contract/addresses.ts'
import type { Handlers } from '../../control/route.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { getAgent, listAgents } from '../../store/agents/agents.ts'
import { getLnurlAddress } from '../../store/money/zaps.ts'
import { encodeLnurl } from '../../wallet/lightning/lnurl.ts'
import type { Services } from '../services.ts'
import { ownerNamed } from './wallet.ts'

type Address = Awaited<ReturnType<Handlers<typeof addressRoutes>['getAddress']>>

/** Reading needs no service. */
export function addressHandlers(services: Services): Handlers<typeof addressRoutes> {
  const { store, keyring, parts } = services
  /** The service, or why there is none. */
  const service = (): { readonly url: string; readonly reason: null } | { readonly url: null; readonly reason: string } => {
    try {
      return { url: parts.zapAddresses.get().baseUrl, reason: null }
    } catch (error) {
      if (isPylonError(error)) return { url: null, reason: error.message }
      throw error
    }
  }
  const owner = (name: string): WalletOwner => {
    const found = ownerNamed(keyring, store, name)
    if (found.kind === 'customer')
      throw new PylonError('wallet_not_found', 'The customer wallet only pays: an address is for node or an agent.')
    return found
  }
  const view = ({ kind, pubkey }: WalletOwner): Address => {
    const agent = kind === 'agent' ? getAgent(store, pubkey) : undefined
    const who = { wallet: agent?.name ?? kind, npub: npubOf(pubkey) }
    const set = agent?.profile['lud16']
    if (set !== undefined && set !== '')
      return {
        ...who,
        address: set,
        lnurl: lnurlOf(set),
        source: 'set',
        mint_url: null,
        reason: 'what is paid there goes where its owner said',
      }
    const { url, reason } = service()
    const row = getLnurlAddress(store, pubkey)
    if (row === undefined) {
      const none = reason ?? (kind === 'node' ? 'none was asked for: pylon wallet address make' : 'the service has not given one yet')
      return { ...who, address: null, lnurl: null, source: 'none', mint_url: null, reason: none }
    }
    const stale = url === null ? `nothing is fetched from ${row.baseUrl}: ${reason}` : `it is at ${row.baseUrl}, and ${url} is asked`
    const isFetched = row.baseUrl === url
    return { ...who, address: row.lud16, lnurl: row.lnurl, source: 'service', mint_url: row.mintUrl, reason: isFetched ? null : stale }
  }
  return {
    listAddresses: () => {
      const { url, reason } = service()
      const agents = listAgents(store).map(({ pubkey }) => view({ kind: 'agent', pubkey }))
      return { service: url, reason, addresses: [view(ownerNamed(keyring, store, 'node')), ...agents] }
    },
    getAddress: ({ wallet }) => view(owner(wallet)),
    makeAddress: async ({ wallet }) => {
      const found = owner(wallet)
      await parts.zapAddresses.get().register(found, getAgent(store, found.pubkey)?.name ?? services.config().node.name)
      return view(found)
    },
  }
}

function lnurlOf(lud16: string): string | null {
  const [name, host] = lud16.split('@')
  return name === undefined || host === undefined ? null : encodeLnurl(`https://${host}/.well-known/lnurlp/${name}`)
}
