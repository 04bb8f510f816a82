/** How alerts begin and end, pure: each once, after it held for its time; what comes and goes is told rarely. */
import type { AlertRow } from '../../store/control/alerts.ts'
import { ALERT_RULES, type Finding } from './alert-rules.ts'

/** Gone for so long it is over. */
const FADE_MS = 5 * 60_000
/** What was over and comes back within the time of FLAP_MS must hold so long. */
const RETURN_HOLD_MS = 60 * 60_000
const FLAP_MS = 6 * 60 * 60_000
const KEEP_MS = 7 * 24 * 60 * 60_000

export interface AlertChange {
  /** Rows that are new or other than before. */
  readonly rows: readonly AlertRow[]
  readonly gone: readonly string[]
}

export function stepAlerts(before: readonly AlertRow[], findings: readonly Finding[], now: number): AlertChange {
  const found = new Map(findings.map((finding) => [finding.key, finding]))
  const known = new Map(before.map((row) => [row.key, row]))
  const fresh = findings.filter(({ key }) => !known.has(key)).map((finding) => begun(finding, now))
  const next = [...before, ...fresh].map((row) => ({ row, next: stepOne(row, found.get(row.key), now) }))
  return {
    rows: next.flatMap(({ row, next }) => (next === undefined || (next === row && known.has(row.key)) ? [] : [next])),
    gone: next.flatMap(({ row, next }) => (next === undefined ? [row.key] : [])),
  }
}

const begun = ({ key, kind, words }: Finding, now: number): AlertRow => ({
  ...{ key, kind, words, state: 'held', told: false },
  since: now,
  changedAt: now,
})

function stepOne(row: AlertRow, finding: Finding | undefined, now: number): AlertRow | undefined {
  const to = (state: AlertRow['state'], change: Partial<AlertRow> = {}): AlertRow => ({ ...row, state, changedAt: now, ...change })
  const ageMs = now - row.changedAt
  if (finding === undefined) {
    // What had been over, and comes and goes, is remembered.
    if (row.state === 'held') return row.since > row.changedAt ? to('over') : undefined
    if (row.state === 'on') return to('fading')
    if (row.state === 'fading') return ageMs >= FADE_MS ? to('over') : row
    return ageMs >= KEEP_MS ? undefined : row
  }
  const { words } = finding
  switch (row.state) {
    case 'held':
      return now - row.since >= ALERT_RULES[row.kind].holdMs ? to('on', { words }) : row
    case 'on':
      return row.words === words ? row : { ...row, words }
    case 'fading':
      return to('on', { words })
    case 'over':
      // `since` ahead of now: it must hold until then, and longer where it has just been over.
      return to('held', { words, told: false, since: ageMs < FLAP_MS ? now + RETURN_HOLD_MS - ALERT_RULES[row.kind].holdMs : now })
  }
}
