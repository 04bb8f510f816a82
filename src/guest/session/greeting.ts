/** Says hello to the owner until they have come: by a welcome into a session, or by a word in one. */
import { createHash } from 'node:crypto'
import { unixSeconds } from '../../base/clock.ts'
import { randomHex } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import { VERSION } from '../../base/version.ts'
import { identify } from '../../nostr/nips/nip01.ts'
import { sealRumor, wrapSeal } from '../../nostr/nips/nip59.ts'
import type { Nostr, Signer } from '../../nostr/types.ts'
import { helloTemplate } from '../../session/hello.ts'
import type { Group } from '../../session/types.ts'
import { helloMessage } from '../../store/keys.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'

const BACKOFF = { minMs: 2000, maxMs: 60_000 }
/** A hello that is not taken by then is said anew. */
const GOOD_FOR_MS = 60_000
const SETTING = 'guest:hello'

export interface GreetingDeps {
  readonly scope: Scope
  readonly store: Store
  readonly nostr: Pick<Nostr, 'nudgeOutbox'>
  readonly signer: Signer
  readonly relays: readonly string[]
  readonly runtimeId: string
  readonly token: string
  readonly owner: string
  /** Those with the owner. */
  groups(): readonly Group[]
}

/** What was before the first hello of a token, and whether it was answered. */
interface Hello {
  readonly of: string
  readonly known: readonly string[]
  readonly isAnswered: boolean
}

export class Greeting {
  readonly #deps: GreetingDeps
  #hello: Hello

  constructor(deps: GreetingDeps) {
    this.#deps = deps
    const of = createHash('sha256').update(`${deps.runtimeId}\n${deps.token}`).digest('hex')
    const kept = getSetting<Hello>(deps.store, SETTING)
    this.#hello = kept?.of === of ? kept : { of, known: deps.groups().map(({ id }) => id), isAnswered: false }
  }

  start(): void {
    if (!this.#hello.isAnswered) this.#deps.scope.spawn('hello', () => this.#greet())
  }

  /** The owner was heard. */
  answered(): void {
    if (this.#hello.isAnswered) return
    this.#hello = { ...this.#hello, isAnswered: true }
    this.#deps.scope.spawn('note', () => this.#keep())
  }

  async #greet(): Promise<void> {
    const { scope, groups } = this.#deps
    await this.#keep()
    const backoff = scope.backoff(BACKOFF)
    for (;;) {
      if (groups().some(({ id }) => !this.#hello.known.includes(id))) this.answered()
      if (this.#hello.isAnswered) return
      await this.#say()
      await backoff.wait()
    }
  }

  async #say(): Promise<void> {
    const { scope, store, nostr, signer, owner, runtimeId, token, relays } = this.#deps
    const [at, nowS] = [scope.clock.now(), unixSeconds(scope.clock)]
    const rumor = identify(signer.pubkey, helloTemplate({ botPubkey: signer.pubkey, runtimeId, token, owner, version: VERSION, nowS }))
    const seal = await sealRumor(signer, rumor, owner, nowS)
    const event = wrapSeal(seal, owner, nowS, scope.random)
    const key = helloMessage.of(`${runtimeId}:${randomHex(scope.random, 4)}`)
    await store.write(enqueueEvent({ key, event, seal, relays, notAfter: at + GOOD_FOR_MS, at }))
    nostr.nudgeOutbox()
  }

  async #keep(): Promise<void> {
    const { store, scope } = this.#deps
    await store.write(putSetting({ key: SETTING, value: this.#hello, at: scope.clock.now() }))
  }
}
