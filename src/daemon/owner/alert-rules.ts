/** What is told as an alert: of each kind how it is found in what the node knows, its words, and how long it must hold. Pure. */
import { ALERT_KINDS, type AlertKind } from '../../base/alert-kinds.ts'

/** What health and doctor know, as far as it is told. */
export interface AlertFacts {
  readonly agents: readonly { readonly name: string; readonly state: string; readonly balanceSats: bigint }[]
  readonly node: { readonly balanceSats: bigint; readonly lowSats: bigint }
  readonly payouts: readonly { readonly wallet: string; readonly reason: string }[]
  readonly relays: readonly { readonly url: string; readonly state: string; readonly reason: string | undefined }[]
  readonly mints: readonly { readonly url: string; readonly state: 'ok' | 'down'; readonly reason: string | null }[]
  /** Why the owner's Lightning wallet, the disk, the backups or the audit log are not well; undefined where they are. */
  readonly wallet: string | undefined
  readonly disk: string | undefined
  readonly backups: string | undefined
  readonly audit: string | undefined
  readonly refunds: { readonly count: number; readonly totalSats: bigint }
  readonly substrates: readonly { readonly provider: string; readonly usable: boolean; readonly reason?: string }[]
}

export interface Finding {
  readonly key: string
  readonly kind: AlertKind
  readonly words: string
}

interface Rule {
  /** How long it must hold before it is told. */
  readonly holdMs: number
  find(facts: AlertFacts): readonly { readonly about: string; readonly words: string }[]
}

const MINUTE_MS = 60_000
const LOW = ['low_balance', 'hibernating', 'dormant']

const one = (reason: string | undefined, words: (reason: string) => string) =>
  reason === undefined ? [] : [{ about: '', words: words(reason) }]

export const ALERT_RULES: Readonly<Record<AlertKind, Rule>> = {
  low_balance: {
    // An agent, or the wallet of the node (alerts.low_balance_sats), is running out of sats.
    holdMs: 0,
    find: ({ agents, node }) => [
      ...agents
        .filter(({ state }) => LOW.includes(state))
        .map(({ name, state, balanceSats }) => ({
          about: name,
          words: `${name} is ${state.replace('_', ' ')} with ${balanceSats} sats. Next: pylon agent fund ${name} SATS`,
        })),
      ...(node.balanceSats < node.lowSats
        ? [
            {
              about: 'node',
              words: `The wallet of the node holds ${node.balanceSats} sats, less than ${node.lowSats}. Next: pylon wallet invoice SATS`,
            },
          ]
        : []),
    ],
  },
  payout_failed: {
    // A standing payout fails.
    holdMs: 0,
    find: ({ payouts }) =>
      payouts.map(({ wallet, reason }) => ({
        about: wallet,
        words: `The payout of ${wallet} fails: ${reason} Next: pylon wallet payout show`,
      })),
  },
  relay_deaf: {
    // A relay is down, or connected and delivers nothing.
    holdMs: 10 * MINUTE_MS,
    find: ({ relays }) =>
      relays
        .filter(({ state, reason }) => state !== 'connected' || reason === 'deaf')
        .map(({ url, state, reason }) => ({
          about: url,
          words: `The relay ${url} is ${reason === 'deaf' ? 'deaf: it is connected and delivers nothing' : `${state}: ${reason ?? 'no answer'}`}. Next: pylon doctor`,
        })),
  },
  mint_down: {
    // A mint does not answer.
    holdMs: 10 * MINUTE_MS,
    find: ({ mints }) =>
      mints
        .filter(({ state }) => state === 'down')
        .map(({ url, reason }) => ({
          about: url,
          words: `The mint ${url} is down: ${reason ?? 'no answer'}. Sats there stay. Next: pylon doctor`,
        })),
  },
  wallet_down: {
    // Your Lightning wallet (pylon wallet connect) does not answer.
    holdMs: 10 * MINUTE_MS,
    find: ({ wallet }) => one(wallet, (reason) => `Your Lightning wallet: ${reason}. Next: pylon wallet connect shows it`),
  },
  disk_low: {
    // The disk of the home is nearly full.
    holdMs: MINUTE_MS,
    find: ({ disk }) => one(disk, (reason) => `The disk is low: ${reason} Next: free some space`),
  },
  refund_stuck: {
    // Refunds to customers cannot be made.
    holdMs: 30 * MINUTE_MS,
    find: ({ refunds: { count, totalSats } }) =>
      one(
        count === 0 ? undefined : `${count}`,
        () => `Refunds of ${totalSats} sats to customers are not made yet. Next: pylon doctor says why`,
      ),
  },
  backup_failed: {
    // The scheduled backup fails.
    holdMs: 0,
    find: ({ backups }) => one(backups, (reason) => `The backup fails: ${reason} Next: pylon doctor`),
  },
  substrate_down: {
    // A substrate for machines is not usable.
    holdMs: 10 * MINUTE_MS,
    find: ({ substrates }) =>
      substrates
        .filter(({ usable }) => !usable)
        .map(({ provider, reason }) => ({
          about: provider,
          words: `The substrate ${provider} is not usable: ${reason ?? 'no reason'}. Next: pylon doctor`,
        })),
  },
  audit_broken: {
    // The audit log was changed.
    holdMs: 0,
    find: ({ audit }) =>
      one(audit, (reason) => `The audit log is broken: ${reason} Next: pylon backup PATH, then look who had access to the home`),
  },
}

/** Of one kind at most: the rest is in `pylon doctor`. */
const MAX_OF_KIND = 20

export function findAlerts(facts: AlertFacts): Finding[] {
  return ALERT_KINDS.flatMap((kind) =>
    ALERT_RULES[kind]
      .find(facts)
      .slice(0, MAX_OF_KIND)
      .map(({ about, words }) => ({ key: about === '' ? kind : `${kind}:${about}`, kind, words })),
  )
}
