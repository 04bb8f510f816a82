/** Next steps that differ by network. */

export type NetworkName = 'sandbox' | 'live'

/** How sats come into a wallet: play money from the faucet, real ones by an invoice. */
export function howToFund(network: NetworkName, sats?: bigint): string {
  const amount = sats === undefined ? 'SATS' : String(sats)
  return network === 'sandbox' ? `pylon wallet fund ${amount}` : `pylon wallet invoice ${amount}`
}

/** How a node is started, where it is not. */
export const howToStart = (network: NetworkName): string => (network === 'sandbox' ? 'pylon start --sandbox' : 'pylon start')
