/** Where the hosts of the simulated network are. */
export const RELAYS = ['http://127.0.0.1:7001', 'http://127.0.0.1:7002'] as const
/** A run has one of them or both. */
export const MINTS = ['http://127.0.0.1:7003', 'http://127.0.0.1:7005'] as const
export const LNURL = 'http://127.0.0.1:7004'
export const SHOP = 'http://127.0.0.1:7006'
