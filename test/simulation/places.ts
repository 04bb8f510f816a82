/** Where the hosts of the simulated network are. */
export const RELAYS = ['http://127.0.0.1:7001', 'http://127.0.0.1:7002'] as const
export const MINT = 'http://127.0.0.1:7003'
export const LNURL = 'http://127.0.0.1:7004'
