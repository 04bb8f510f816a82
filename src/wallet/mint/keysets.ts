/** The keysets of mints (NUT-01, 02): their lists taken item by item, their keys read where they are needed and believed only when they make the id. */
import { hash } from 'node:crypto'
import { Keyset } from '@cashu/cashu-ts'
import { z } from 'zod'
import { messageOf, PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import {
  getKeyset,
  type KeysetInfo,
  type KeysetRow,
  listKeysets,
  noteKeysets,
  putKeysetKeys,
  putSetAside,
  type SetAside,
} from '../../store/money/keysets.ts'
import type { Store } from '../../store/store.ts'
import type { MintPublicKeys } from '../ecash/crypto.ts'
import { keysetsSchema, keysSchema, type MintClient, type MintReply, unwrap } from './client.ts'

/** How old the list may be when outputs are made. */
const FRESH_MS = 60_000
const HEX_ID = /^(00[0-9a-f]{14}|01[0-9a-f]{64})$/
/** As mints had them before: of no use, and no fault where they sign no more. */
const LEGACY_ID = /^[A-Za-z0-9+/_-]{12}$/
/** What is kept of a list; active ones come first. */
const MAX_KEYSETS = 2000
/** Keys of retired keysets that are read ahead, in one go and in all: the others are read when a coin names them. */
const READ_AHEAD = 16
const MAX_READ_AHEAD = 100
/** How long a retired keyset whose keys are no good is let alone. */
const FAULT_KEPT_MS = 6 * 3_600_000
const MAX_SET_ASIDE = 20
/** A keyset that ends within this is left, and its coins move to another. */
export const SOON_MS = 30 * 86_400_000

const itemSchema = z.object({
  id: z.string().min(1).max(100),
  unit: z.string().max(32),
  active: z.boolean(),
  input_fee_ppk: z.int().min(0).max(100_000).nullish(),
  final_expiry: z.int().min(0).nullish(),
})

export interface KeysetsDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  client(url: string): MintClient
  note(url: string, reply: MintReply<unknown>): Promise<void>
}

type Listed = Pick<KeysetInfo, 'id' | 'active' | 'inputFeePpk' | 'finalExpiry'>

export class Keysets {
  readonly #deps: KeysetsDeps
  /** Of keysets whose keys are no good: why, and when that was seen. */
  readonly #faults = new Map<string, { readonly reason: string; readonly at: number }>()
  /** Called when an active keyset of a mint went. */
  onRetired: () => void = () => {}

  constructor(deps: KeysetsDeps) {
    this.#deps = deps
  }

  list(url: string): KeysetInfo[] {
    return listKeysets(this.#deps.store, url)
  }

  /** The keys of one keyset of a mint; read and checked where they are not known. @throws mint_incompatible, mint_unreachable, mint_rejected */
  async keys(url: string, id: string): Promise<MintPublicKeys> {
    let keyset = getKeyset(this.#deps.store, url, id)
    if (keyset === undefined) {
      // Younger than our list.
      await this.refresh(url)
      keyset = getKeyset(this.#deps.store, url, id)
    }
    if (keyset === undefined) throw new PylonError('mint_incompatible', `${url} does not list the keyset ${id.slice(0, 70)}.`)
    return keyset.hasKeys ? keyset.keys : this.#readKeys(url, keyset)
  }

  /** The keyset to make outputs with: active, in sats, not soon at its end, cheapest. Asks the mint again when our list is old. @throws mint_unreachable, mint_incompatible */
  async active(url: string, options: { refresh?: boolean } = {}): Promise<KeysetRow> {
    const { store, scope } = this.#deps
    const pick = () => {
      const now = scope.clock.now()
      const endsBy = (at: number) => (keyset: KeysetInfo) => keyset.finalExpiry !== null && keyset.finalExpiry * 1000 <= at
      return this.list(url)
        .filter((keyset) => keyset.active && keyset.hasKeys && !endsBy(now)(keyset))
        .sort((a, b) => Number(endsBy(now + SOON_MS)(a)) - Number(endsBy(now + SOON_MS)(b)) || a.inputFeePpk - b.inputFeePpk)[0]
    }
    const known = pick()
    const stale = known === undefined || known.fetchedAt < scope.clock.now() - FRESH_MS
    if (stale || options.refresh === true) await this.refresh(url)
    const found = pick()
    const keyset = found === undefined ? undefined : getKeyset(store, url, found.id)
    if (keyset === undefined) throw this.#noActive(url)
    return keyset
  }

  #noActive(url: string): PylonError {
    const bad = this.list(url).filter((keyset) => keyset.active && !keyset.hasKeys)
    const why = bad.map(({ id }) => `; ${id} can't be used: ${this.#faults.get(faultKey(url, id))?.reason ?? 'its keys are not known'}`)
    return new PylonError('mint_incompatible', `${url} has no active keyset in sats${why.slice(0, 3).join('')}.`)
  }

  /** Reads the list again. @throws mint_unreachable, mint_rejected */
  refresh(url: string): Promise<void> {
    return this.#deps.scope.once(`keysets of ${url}`, () => this.#refresh(url))
  }

  async #refresh(url: string): Promise<void> {
    const { store, scope, logger } = this.#deps
    const { keysets, setAside } = await this.fetchList(url)
    const { foreign, retired } = await store.write(noteKeysets({ mintUrl: url, keysets, at: scope.clock.now() }))
    const faults = await this.#readAhead(url, new Set(keysets.map((keyset) => keyset.id)))
    const all = [...setAside, ...foreign, ...faults]
    const told =
      all.length > MAX_SET_ASIDE ? [...all.slice(0, MAX_SET_ASIDE), { id: 'others', reason: `${all.length - MAX_SET_ASIDE} more` }] : all
    if (await store.write(putSetAside({ mintUrl: url, setAside: told })))
      logger.warn({ mint: url, keysets: told.map(({ id, reason }) => `${id}: ${reason}`) }, 'keysets of a mint are set aside')
    if (retired) this.onRetired()
  }

  /** The list as the mint has it now, item by item: what is no keyset in sats is left out, what should be one and is not is set aside. */
  async fetchList(url: string): Promise<{ keysets: Listed[]; setAside: SetAside[] }> {
    const reply = await this.#deps.client(url).get('/v1/keysets', keysetsSchema)
    await this.#deps.note(url, reply)
    const keysets = new Map<string, Listed>()
    const setAside: SetAside[] = []
    for (const [index, item] of unwrap(url, reply).keysets.entries()) {
      const { id, unit } = (item ?? {}) as { id?: unknown; unit?: unknown }
      if (typeof unit === 'string' && unit !== 'sat') continue
      const name = typeof id === 'string' ? id.slice(0, 70) : `number ${index + 1}`
      const parsed = itemSchema.safeParse(item)
      if (!parsed.success) {
        const issue = parsed.error.issues[0]
        setAside.push({ id: name, reason: `its entry is malformed (${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''})` })
      } else if (HEX_ID.test(parsed.data.id)) {
        const { active, input_fee_ppk, final_expiry } = parsed.data
        if (keysets.get(parsed.data.id)?.active !== true)
          keysets.set(parsed.data.id, { id: parsed.data.id, active, inputFeePpk: input_fee_ppk ?? 0, finalExpiry: final_expiry || null })
      } else if (parsed.data.active || !LEGACY_ID.test(parsed.data.id)) {
        setAside.push({ id: name, reason: 'its id is of a form that Pylon does not know' })
      }
    }
    const sorted = [...keysets.values()].sort((a, b) => Number(b.active) - Number(a.active))
    if (sorted.length > MAX_KEYSETS)
      setAside.push({ id: 'others', reason: `${sorted.length - MAX_KEYSETS} more are listed than are looked at` })
    return { keysets: sorted.slice(0, MAX_KEYSETS), setAside }
  }

  /** Reads keys that are not known: of all active ones, and of some retired ones. Returns those that are no good. */
  async #readAhead(url: string, listed: ReadonlySet<string>): Promise<SetAside[]> {
    const { scope } = this.#deps
    const known = this.list(url)
    const isFresh = ({ id }: KeysetInfo) => (this.#faults.get(faultKey(url, id))?.at ?? 0) > scope.clock.now() - FAULT_KEPT_MS
    const unread = known.filter((keyset) => !keyset.hasKeys && listed.has(keyset.id))
    const room = Math.max(0, Math.min(READ_AHEAD, MAX_READ_AHEAD - known.filter((keyset) => keyset.hasKeys).length))
    const wanted = [
      ...unread.filter((keyset) => keyset.active).slice(0, READ_AHEAD),
      ...unread.filter((keyset) => !keyset.active && !isFresh(keyset)).slice(0, room),
    ]
    for (const keyset of wanted) {
      try {
        await this.#readKeys(url, keyset)
      } catch {
        // Noted among the faults below.
      }
    }
    return unread.flatMap(({ id }) => {
      const fault = this.#faults.get(faultKey(url, id))
      return fault === undefined ? [] : [{ id, reason: fault.reason }]
    })
  }

  /** @throws mint_incompatible, mint_unreachable, mint_rejected */
  async #readKeys(url: string, keyset: KeysetInfo): Promise<MintPublicKeys> {
    const { store, scope } = this.#deps
    const key = faultKey(url, keyset.id)
    try {
      const keys = await this.fetchKeys(url, keyset)
      this.#faults.delete(key)
      await store.write(putKeysetKeys({ id: keyset.id, keys }))
      return keys
    } catch (error) {
      this.#faults.set(key, { reason: messageOf(error).slice(0, 200), at: scope.clock.now() })
      throw error
    }
  }

  /** NUT-02: the id is a digest of the keys; another one is a lie. */
  async fetchKeys(
    url: string,
    { id, inputFeePpk, finalExpiry }: Pick<Listed, 'id' | 'inputFeePpk' | 'finalExpiry'>,
  ): Promise<MintPublicKeys> {
    const reply = unwrap(url, await this.#deps.client(url).get(`/v1/keys/${id}`, keysSchema))
    const found = reply.keysets.find((one) => one?.id === id)
    const fees = [inputFeePpk, found?.input_fee_ppk ?? 0]
    const expiries = [finalExpiry, found?.final_expiry ?? null, null, 0]
    const belongs = found !== undefined && fees.some((fee) => expiries.some((expiry) => makesId(id, found.keys, fee, expiry)))
    if (found === undefined || !belongs)
      throw new PylonError('mint_incompatible', `${url} gives keys for the keyset ${id} that do not belong to it.`)
    return found.keys
  }
}

/**
 * Newer ids cover fee and expiry too, as they were when the keyset was made: the list may have other ones by now, and some
 * mints write an end that never comes as 0.
 */
function makesId(id: string, keys: MintPublicKeys, fee: number, expiry: number | null): boolean {
  if (id.startsWith('00')) return Keyset.verifyKeysetId({ id, unit: 'sat', keys: { ...keys } })
  const sorted = Object.entries(keys).sort(([a], [b]) => (BigInt(a) < BigInt(b) ? -1 : 1))
  const text = `${sorted.map(([amount, key]) => `${amount}:${key}`).join(',')}|unit:sat`
  const of = `${fee > 0 ? `|input_fee_ppk:${fee}` : ''}${expiry === null ? '' : `|final_expiry:${expiry}`}`
  return id === `01${hash('sha256', text + of)}`
}

const faultKey = (url: string, id: string): string => `${url} ${id}`
