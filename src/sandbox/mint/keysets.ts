/** The keysets of the mint (NUT-01, NUT-02), derived from one seed; only the newest signs. */
import { createHmac } from 'node:crypto'
import { deriveKeysetId } from '@cashu/cashu-ts'
import { isPrivate, pointFromScalar } from 'tiny-secp256k1'
import type { SandboxDatabase } from '../database.ts'
import { MintError } from './errors.ts'

export const UNIT = 'sat'
/** What an input costs, in thousandths of a sat, unless a keyset was made to cost something else. */
const INPUT_FEE_PPK = 100
/** Amounts 1, 2, 4, ... up to 2^31 sats. */
const DENOMINATIONS = 32

export interface Keyset {
  readonly id: string
  readonly active: boolean
  readonly inputFeePpk: number
  /** Amount in sats to its private key. */
  readonly privateKeys: ReadonlyMap<number, Uint8Array>
  /** Amount in sats to its public key as hex: what wallets see. */
  readonly publicKeys: Readonly<Record<string, string>>
}

export class Keysets {
  readonly #database: SandboxDatabase
  readonly #byId = new Map<string, Keyset>()
  #active: Keyset

  constructor(database: SandboxDatabase) {
    this.#database = database
    database.sql('INSERT OR IGNORE INTO keysets (position, active) VALUES (0, 1)').run()
    this.#active = this.#load()
  }

  get active(): Keyset {
    return this.#active
  }

  all(): Keyset[] {
    return [...this.#byId.values()]
  }

  /** @throws keyset_unknown */
  get(id: string): Keyset {
    const keyset = this.#byId.get(id)
    if (keyset === undefined) throw new MintError('keyset_unknown', `keyset ${id} is not known`)
    return keyset
  }

  /** NUT-02: what spending these costs, in sats, rounded up once over all. @throws keyset_unknown */
  inputFee(inputs: readonly { readonly id: string }[]): number {
    return Math.ceil(inputs.reduce((sum, { id }) => sum + this.get(id).inputFeePpk, 0) / 1_000)
  }

  /** Deactivates the present keyset and starts a new one. */
  rotate(inputFeePpk?: number): void {
    this.#database.transaction(() => {
      this.#database.sql('UPDATE keysets SET active = 0').run()
      this.#database.sql('INSERT INTO keysets (position, active) SELECT max(position) + 1, 1 FROM keysets').run()
      if (inputFeePpk === undefined) return
      const fee = this.#database.sql('INSERT INTO keyset_fees (position, input_fee_ppk) SELECT max(position), ? FROM keysets')
      fee.run(inputFeePpk)
    })
    this.#active = this.#load()
  }

  #load(): Keyset {
    const seed = this.#database.secret('mint_seed')
    const sql = this.#database.sql(
      'SELECT position, active, input_fee_ppk FROM keysets LEFT JOIN keyset_fees USING (position) ORDER BY position',
    )
    const rows = sql.all() as { position: number; active: number; input_fee_ppk: number | null }[]
    // By position: a rotation changes what is active and adds one, the keys of the others stay.
    const known = [...this.#byId.values()]
    const keysets = rows.map((row, i) => ({
      ...(known[i] ?? deriveKeyset(seed, row.position, row.input_fee_ppk ?? INPUT_FEE_PPK)),
      active: row.active === 1,
    }))
    for (const keyset of keysets) this.#byId.set(keyset.id, keyset)
    return keysets.at(-1) as Keyset
  }
}

function deriveKeyset(seed: Uint8Array, position: number, inputFeePpk: number): Omit<Keyset, 'active'> {
  const privateKeys = new Map<number, Uint8Array>()
  const publicKeys: Record<string, string> = {}
  for (let i = 0; i < DENOMINATIONS; i++) {
    const amount = 2 ** i
    const key = deriveKey(seed, `keyset/${position}/${amount}`)
    privateKeys.set(amount, key)
    publicKeys[amount] = Buffer.from(pointFromScalar(key, true) as Uint8Array).toString('hex')
  }
  const id = deriveKeysetId(publicKeys, { unit: UNIT, input_fee_ppk: inputFeePpk, versionByte: 1 })
  return { id, inputFeePpk, privateKeys, publicKeys }
}

function deriveKey(seed: Uint8Array, path: string): Uint8Array {
  for (let attempt = 0; ; attempt++) {
    const key = createHmac('sha256', seed).update(`${path}/${attempt}`).digest()
    if (isPrivate(key)) return key
  }
}
