/** The mints of this home: the allowlist, what each can do, its keysets, and how it is. */
import { Keyset } from '@cashu/cashu-ts'
import type { Sats } from '../base/amounts.ts'
import type { Clock } from '../base/clock.ts'
import type { Dialer } from '../base/dialer.ts'
import { PylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { all } from '../store/commands.ts'
import {
  deleteMint,
  getMint,
  type KeysetRow,
  listKeysets,
  listMints,
  type MintRow,
  putKeyset,
  putMint,
  setMintHealth,
} from '../store/mints.ts'
import type { Store } from '../store/store.ts'
import { keysetsSchema, keysSchema, MintClient, type MintReply, mintInfoSchema, unwrap } from './mint-client.ts'
import { normaliseMintUrl } from './token.ts'
import type { MintInfo } from './types.ts'

/** What Pylon cannot do without; 4 and 5 are asked for bolt11 in sats. */
const REQUIRED_NUTS = ['7', '9', '10', '11', '12', '20'] as const
/** How old the list of keysets may be when outputs are made. */
const KEYSETS_FRESH_MS = 60_000
const HEX_KEYSET_ID = /^(00[0-9a-f]{14}|01[0-9a-f]{64})$/

export interface MintsDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly dialer: Pick<Dialer, 'fetch' | 'allow'>
}

export class Mints {
  readonly #deps: MintsDeps
  readonly #clients = new Map<string, MintClient>()
  readonly #refreshes = new Map<string, Promise<void>>()
  readonly #abort = new AbortController()

  constructor(deps: MintsDeps) {
    this.#deps = deps
    for (const mint of listMints(deps.store)) deps.dialer.allow(mint.url)
  }

  /** Ends every call that is under way: their outcome is unknown, the next start finds it out. */
  abort(): void {
    this.#abort.abort(new Error('the node is closing'))
  }

  list(): MintRow[] {
    return listMints(this.#deps.store)
  }

  /** @throws mint_not_allowed */
  get(url: string): MintRow {
    const mint = getMint(this.#deps.store, url)
    if (mint === undefined) {
      throw new PylonError('mint_not_allowed', `The mint ${url} is not on the list: add it with pylon wallet mints add ${url}.`)
    }
    return mint
  }

  client(url: string): MintClient {
    let client = this.#clients.get(url)
    if (client === undefined) {
      client = new MintClient(url, this.#deps.dialer, this.#abort.signal)
      this.#clients.set(url, client)
    }
    return client
  }

  /** Whether the mint says it has this NUT. */
  supports(mint: MintRow, nut: string): boolean {
    const nuts = (mint.info as { nuts?: Record<string, unknown> }).nuts ?? {}
    const entry = nuts[nut]
    if (typeof entry !== 'object' || entry === null) return false
    const supported = (entry as { supported?: unknown }).supported
    return supported === true || Array.isArray(supported)
  }

  /** @throws mint_unreachable, mint_incompatible, mint_rejected, address_refused */
  async add(url: string, capSats: Sats): Promise<MintInfo> {
    const { store, clock, dialer } = this.#deps
    const mintUrl = normaliseConfiguredUrl(url)
    dialer.allow(mintUrl)
    const info = unwrap(mintUrl, await this.client(mintUrl).get('/v1/info', mintInfoSchema))
    assertCompatible(mintUrl, info.nuts)
    const keysets = await this.#fetchKeysets(mintUrl)
    if (!keysets.some((keyset) => keyset.active)) throw new PylonError('mint_incompatible', `${mintUrl} has no active keyset in sats.`)
    await store.write(all(...keysets.map((keyset) => putKeyset(keyset)), putMint({ url: mintUrl, capSats, info, at: clock.now() })))
    const { addedAt } = this.get(mintUrl)
    return { url: mintUrl, capSats, addedAt }
  }

  /** @throws mint_in_use, mint_not_allowed */
  async remove(url: string): Promise<void> {
    const mintUrl = normaliseConfiguredUrl(url)
    this.get(mintUrl)
    await this.#deps.store.write(deleteMint({ url: mintUrl }))
  }

  keysets(url: string): KeysetRow[] {
    return listKeysets(this.#deps.store, url)
  }

  /** The keyset to make outputs with: active, in sats, cheapest. Asks the mint again when our list is old. @throws mint_unreachable */
  async activeKeyset(url: string, options: { refresh?: boolean } = {}): Promise<KeysetRow> {
    const pick = () => {
      const nowS = this.#deps.clock.now() / 1000
      return this.keysets(url)
        .filter((keyset) => keyset.active && (keyset.finalExpiry === null || keyset.finalExpiry > nowS))
        .sort((a, b) => a.inputFeePpk - b.inputFeePpk)[0]
    }
    const known = pick()
    const stale = known === undefined || known.fetchedAt < this.#deps.clock.now() - KEYSETS_FRESH_MS
    if (stale || options.refresh === true) await this.refreshKeysets(url)
    const active = pick()
    if (active === undefined) throw new PylonError('mint_incompatible', `${url} has no active keyset in sats.`)
    return active
  }

  /** @throws mint_unreachable, mint_rejected, mint_incompatible */
  refreshKeysets(url: string): Promise<void> {
    let running = this.#refreshes.get(url)
    if (running === undefined) {
      running = this.#fetchKeysets(url)
        .then(async (keysets) => void (await this.#deps.store.write(all(...keysets.map((keyset) => putKeyset(keyset))))))
        .finally(() => this.#refreshes.delete(url))
      this.#refreshes.set(url, running)
    }
    return running
  }

  /** Asks the mint how it is and remembers it. Never rejects for what the mint does. */
  async probe(url: string): Promise<void> {
    await this.note(url, await this.client(url).get('/v1/info', mintInfoSchema))
  }

  /** Remembers how the mint is; written only when it changes. */
  async note(url: string, reply: MintReply<unknown>): Promise<void> {
    const mint = getMint(this.#deps.store, url)
    if (mint === undefined) return
    const state = reply.kind === 'unknown' ? 'down' : 'ok'
    const reason = reply.kind === 'unknown' ? reply.reason.slice(0, 300) : null
    if (mint.state === state) return
    this.#deps.logger.warn({ mint: url, state, reason }, 'mint changed state')
    await this.#deps.store.write(setMintHealth({ url, state, reason }))
  }

  async #fetchKeysets(url: string): Promise<KeysetRow[]> {
    const client = this.client(url)
    const reply = await client.get('/v1/keysets', keysetsSchema)
    await this.note(url, reply)
    const listed = unwrap(url, reply).keysets.filter((keyset) => keyset.unit === 'sat' && HEX_KEYSET_ID.test(keyset.id))
    const known = new Map(this.keysets(url).map((keyset) => [keyset.id, keyset]))
    const fetchedAt = this.#deps.clock.now()
    return Promise.all(
      listed.map(async ({ id, active, input_fee_ppk, final_expiry }) => {
        const inputFeePpk = input_fee_ppk ?? 0
        const finalExpiry = final_expiry ?? null
        const keys = known.get(id)?.keys ?? (await this.#fetchKeys(client, { id, inputFeePpk, finalExpiry }))
        return { id, mintUrl: url, active, inputFeePpk, finalExpiry, keys, fetchedAt }
      }),
    )
  }

  /** NUT-02: the id is a digest of the keys; another one is a lie. */
  async #fetchKeys(
    client: MintClient,
    keyset: { id: string; inputFeePpk: number; finalExpiry: number | null },
  ): Promise<Record<string, string>> {
    const { id, inputFeePpk, finalExpiry } = keyset
    const found = unwrap(client.url, await client.get(`/v1/keys/${id}`, keysSchema)).keysets.find((one) => one.id === id)
    const described = { id, unit: 'sat', input_fee_ppk: inputFeePpk, ...(finalExpiry === null ? {} : { final_expiry: finalExpiry }) }
    if (found === undefined || !Keyset.verifyKeysetId({ ...described, keys: found.keys })) {
      throw new PylonError('mint_incompatible', `${client.url} gives keys for the keyset ${id} that do not belong to it.`)
    }
    return found.keys
  }
}

/** @throws mint_cap_exceeded */
export function assertUnderCap(mint: MintRow, held: bigint, more: bigint): void {
  if (held + more <= mint.capSats) return
  throw new PylonError(
    'mint_cap_exceeded',
    `${mint.url} would hold ${held + more} sats of this wallet, its cap is ${mint.capSats}: raise it with pylon wallet mints add ${mint.url} --cap SATS, or use another mint.`,
  )
}

function normaliseConfiguredUrl(url: string): string {
  try {
    return normaliseMintUrl(url)
  } catch {
    throw new PylonError('invalid_request', `${url.slice(0, 200)} is no http(s) URL of a mint.`)
  }
}

function assertCompatible(url: string, nuts: Readonly<Record<string, unknown>>): void {
  const missing: string[] = REQUIRED_NUTS.filter((nut) => (nuts[nut] as { supported?: unknown } | undefined)?.supported !== true)
  for (const nut of ['4', '5']) {
    const entry = nuts[nut] as { methods?: unknown; disabled?: unknown } | undefined
    const methods: unknown[] = Array.isArray(entry?.methods) ? entry.methods : []
    const offered = methods.some(
      (one) => (one as { method?: unknown } | null)?.method === 'bolt11' && (one as { unit?: unknown }).unit === 'sat',
    )
    if (!offered || entry?.disabled === true) missing.push(nut)
  }
  if (missing.length === 0) return
  const names = missing.map((nut) => `NUT-${nut.padStart(2, '0')}`).join(', ')
  throw new PylonError('mint_incompatible', `${url} lacks ${names}, which Pylon needs: choose another mint.`, { details: { missing } })
}
