/** The sandbox's mint as a host of the simulated network, with what is wrong with it for now. */
import type { Clock } from '../../src/base/clock.ts'
import { parseJson } from '../../src/base/json.ts'
import { silentLogger } from '../../src/base/logger.ts'
import type { SandboxDatabase } from '../../src/sandbox/database.ts'
import { MintApi } from '../../src/sandbox/mint/api.ts'
import { MINT_ERRORS } from '../../src/sandbox/mint/errors.ts'
import type { Mint } from '../../src/sandbox/mint/mint.ts'
import { MintSubscriptions } from '../../src/sandbox/mint/subscriptions.ts'
import type { Host } from './network.ts'

interface Wrong {
  readonly path: string
  count: number
  readonly isAfter: boolean
  readonly status: number
  readonly text: string
}

interface Listed {
  readonly keysets?: readonly { readonly active?: boolean }[]
}

/** What a mint may say instead of the truth. */
export class MintMoods {
  readonly #wrongs: Wrong[] = []
  readonly #refused = new Map<string, Wrong>()
  keysetsAreLost = false
  statesAreLate = false

  /** The next requests to the path are refused, and nothing is done. */
  refuse(path: string, code: keyof typeof MINT_ERRORS, count: number): void {
    const text = JSON.stringify({ detail: code.replaceAll('_', ' '), code: MINT_ERRORS[code] })
    this.#wrongs.push({ path, count, isAfter: false, status: 400, text })
  }

  /** A proxy answers the next requests to the path, before the mint has heard of them or after it has done what they ask. */
  failAtProxy(path: string, status: number, isAfter: boolean, count: number): void {
    this.#wrongs.push({ path, count, isAfter, status, text: '<html><h1>Bad Gateway</h1></html>' })
  }

  /** Copies of what was refused are refused still, until `forgetRefusals`: they may be on their way. */
  heal(): void {
    this.#wrongs.length = 0
    this.keysetsAreLost = false
    this.statesAreLate = false
  }

  forgetRefusals(): void {
    this.#refused.clear()
  }

  /** What is wrong with this request: one that was refused is refused again, however often a proxy sends it. */
  take(path: string, body: Buffer): Wrong | undefined {
    const request = `${path} ${body.toString()}`
    const found = this.#refused.get(request) ?? this.#wrongs.find((wrong) => wrong.count > 0 && wrong.path === path)
    if (found === undefined) return undefined
    found.count--
    if (!found.isAfter) this.#refused.set(request, found)
    return found
  }

  /** The answer, as far as the mint says it now. */
  tint(path: string, json: string): string {
    if (this.keysetsAreLost && (path === '/v1/keysets' || path === '/v1/keys')) {
      const { keysets = [] } = parseJson(json) as Listed
      return JSON.stringify({ keysets: keysets.filter(({ active }) => active !== false) })
    }
    if (!this.statesAreLate) return json
    if (path === '/v1/checkstate') return json.replaceAll(/"state":"(UN)?SPENT"/g, '"state":"PENDING"')
    return path.startsWith('/v1/melt/quote/bolt11/') ? json.replace('"state":"PAID"', '"state":"PENDING"') : json
  }
}

export interface MintHostDeps {
  readonly mint: Mint
  readonly database: SandboxDatabase
  readonly clock: Clock
  readonly url: string
  readonly moods: MintMoods
}

export function mintHost({ mint, database, clock, url, moods }: MintHostDeps): Host {
  const siblings = { lnurl_base_url: '', relay_url: '' }
  const api = new MintApi({ mint, database, clock, logger: silentLogger, url: () => url, siblings })
  const subscriptions = new MintSubscriptions(mint)
  return {
    answer({ method, target, body }) {
      const path = target.split('?')[0] ?? '/'
      const wrong = moods.take(path, body)
      if (wrong === undefined || wrong.isAfter) {
        const { status, json } = api.answer(method, path, body)
        if (wrong === undefined) return { status, headers: { 'content-type': 'application/json' }, text: moods.tint(path, json) }
      }
      return { status: wrong.status, headers: { 'content-type': 'text/html' }, text: wrong.text }
    },
    accept: (peer) => subscriptions.connect(peer),
  }
}
