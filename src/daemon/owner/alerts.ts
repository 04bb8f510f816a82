/** Alerts: the owner hears once that something is wrong, and once that it is over; several at once come in one letter. */
import type { AlertKind } from '../../base/alert-kinds.ts'
import { type Clock, rfc3339 } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { PylonError } from '../../base/errors.ts'
import { randomUuid } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import type { LetterOutState } from '../../base/states.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { all } from '../../store/commands.ts'
import { type AlertRow, listAlerts, saveAlerts } from '../../store/control/alerts.ts'
import { alertsLetter, testLetter } from '../../store/keys.ts'
import { letterOut, postLetter } from '../../store/nostr/letters.ts'
import type { Store } from '../../store/store.ts'
import { LETTER_TTL_MS, type Letters } from '../letters/letters.ts'
import { type AlertFacts, findAlerts } from './alert-rules.ts'
import { stepAlerts } from './alert-steps.ts'
import type { Owner } from './owner.ts'
import { utcOf } from './words.ts'

const CHECK_MS = 60_000
const MAX_LINES = 20
const TEST_WAIT_MS = 15_000
const TEST_LOOK_MS = 250

export interface AlertsDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly letters: Pick<Letters, 'nudge'>
  config(): Pick<Config, 'alerts'>
  owner(): Owner
  facts(): Promise<AlertFacts>
}

export class Alerts {
  readonly #deps: AlertsDeps

  constructor(deps: AlertsDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#deps.scope.every('look', CHECK_MS, () => this.look())
  }

  /** Looks once: what began or ended is kept and told in one commit. */
  async look(): Promise<void> {
    const { store, clock, facts, letters } = this.#deps
    const found = findAlerts(await facts())
    const now = clock.now()
    const before = listAlerts(store)
    const { rows, gone } = stepAlerts(before, found, now)
    const changed = new Map(rows.map((row) => [row.key, row]))
    const after = [...before.filter(({ key }) => !changed.has(key) && !gone.includes(key)), ...rows]
    const { pubkey } = this.#deps.owner()
    const muted = new Set<AlertKind>(this.#deps.config().alerts.mute)
    const isTold = (row: AlertRow) => pubkey !== undefined && !muted.has(row.kind)
    const begins = after.filter((row) => row.state === 'on' && !row.told && isTold(row))
    const ends = rows.filter((row) => row.state === 'over' && row.told)
    for (const row of begins) changed.set(row.key, { ...row, told: true })
    for (const row of ends) changed.set(row.key, { ...row, told: false })
    if (changed.size === 0 && gone.length === 0) return
    const text = tellAlerts(begins, ends.filter(isTold))
    const letter =
      pubkey === undefined || text === ''
        ? []
        : [postLetter({ key: alertsLetter(now), recipient: pubkey, text, notAfter: now + LETTER_TTL_MS, at: now })]
    await store.write(all(saveAlerts({ rows: [...changed.values()], gone }), ...letter))
    if (letter.length > 0) letters.nudge()
  }

  /** Writes one letter, and waits a little for what becomes of it. @throws owner_missing */
  async test(): Promise<{ to: string; state: LetterOutState; reason: string | null }> {
    const { store, clock, letters, scope } = this.#deps
    const owner = this.#deps.owner()
    if (owner.pubkey === undefined) throw noOwner(owner.problem)
    const [key, at] = [testLetter(randomUuid(scope.random)), clock.now()]
    const text = `A test: this node can write to you. ${utcOf(at)}`
    await store.write(postLetter({ key, recipient: owner.pubkey, text, notAfter: at + TEST_WAIT_MS * 4, at }))
    letters.nudge()
    for (;;) {
      const letter = letterOut(store, key)
      const state = letter?.state ?? 'waiting'
      const isOver = state === 'sent' || state === 'refused' || (letter?.tries ?? 0) > 0
      if (isOver || clock.now() - at > TEST_WAIT_MS) return { to: npubOf(owner.pubkey), state, reason: letter?.reason ?? null }
      await scope.sleep(TEST_LOOK_MS)
    }
  }
}

function noOwner(problem: string | undefined): PylonError {
  return new PylonError('owner_missing', problem ?? 'No owner is set: pylon config set owner.npub npub1...')
}

export function tellAlerts(begins: readonly AlertRow[], ends: readonly AlertRow[]): string {
  const lines = [
    ...begins.map(({ words }) => words),
    ...ends.map(({ words, since }) => `Over, after ${utcOf(since)}: ${words.split(' Next: ')[0]}`),
  ]
  const more = lines.length - MAX_LINES
  return [...lines.slice(0, MAX_LINES), ...(more > 0 ? [`${more} more: pylon alerts`] : [])].join('\n\n')
}

/** As they stand: what is on first. */
export function readAlerts(store: Store) {
  const order = { on: 0, fading: 1, held: 2, over: 3 } as const
  return listAlerts(store)
    .sort((a, b) => order[a.state] - order[b.state] || a.since - b.since)
    .map(({ kind, words, state, since, changedAt, told }) => ({
      ...{ kind, words, state, told },
      since: rfc3339(Math.min(since, changedAt)),
      changed_at: rfc3339(changedAt),
    }))
}
