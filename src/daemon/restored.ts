/** The mark of a restored database: until its wallets have asked their mints, what it says of proofs may be long spent. */

/** Setting: ms since the epoch of the restore; removed by nobody, compared with what the wallets checked. */
export const RESTORED_AT_KEY = 'restored_at'
