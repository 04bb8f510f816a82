/** Gathers what health and doctor know for the alerts; it finds out nothing of its own. */
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import type { Home } from '../../base/paths.ts'
import { readAgents } from '../../host/view.ts'
import type { RelayHealth } from '../../nostr/types.ts'
import { listAgents } from '../../store/agents/agents.ts'
import { verifyAudit } from '../../store/money/audit.ts'
import { unsentRefunds } from '../../store/money/held-value.ts'
import { balancesOf } from '../../store/money/ledger.ts'
import { listMints } from '../../store/money/mints.ts'
import { troubledPayouts } from '../../store/money/payouts.ts'
import type { Store } from '../../store/store.ts'
import { checkDisk } from '../doctor/home-checks.ts'
import type { Health } from '../health.ts'
import type { AlertFacts } from './alert-rules.ts'

/** The whole log is read: not each minute. */
const AUDIT_EVERY_MS = 3_600_000

export interface AlertSources {
  readonly store: Store
  readonly clock: Clock
  readonly home: Home
  config(): Config
  relays(): readonly RelayHealth[]
  lightning(): Health
  backups(): Health
  substrates(): AlertFacts['substrates']
}

export class AlertFactsSource {
  readonly #from: AlertSources
  #audit: { readonly at: number; readonly problem: string | undefined } | undefined

  constructor(from: AlertSources) {
    this.#from = from
  }

  async read(): Promise<AlertFacts> {
    const { store, home, config } = this.#from
    const disk = checkDisk({ home })
    return {
      agents: readAgents(store).map(({ name, state, balance_sats }) => ({ name, state, balanceSats: balance_sats })),
      node: { balanceSats: nodeSats(store), lowSats: BigInt(config().alerts.low_balance_sats) },
      payouts: troubledPayouts(store).map(({ owner, failure }) => ({ wallet: walletName(store, owner), reason: failure.message })),
      relays: this.#from.relays(),
      mints: listMints(store),
      wallet: whyDegraded(this.#from.lightning()),
      disk: disk.state === 'ok' ? undefined : disk.message,
      backups: whyDegraded(this.#from.backups()),
      audit: await this.#readAudit(),
      refunds: unsentRefunds(store),
      substrates: this.#from.substrates(),
    }
  }

  async #readAudit(): Promise<string | undefined> {
    const { store, clock } = this.#from
    const now = clock.now()
    if (this.#audit === undefined || now - this.#audit.at >= AUDIT_EVERY_MS) {
      const verdict = await verifyAudit(store)
      this.#audit = { at: now, problem: verdict.ok ? undefined : `row ${verdict.row} was changed: ${verdict.problem}.` }
    }
    return this.#audit.problem
  }
}

const whyDegraded = (health: Health): string | undefined => (health.state === 'degraded' ? health.reason : undefined)

const nodeSats = (store: Store): bigint => [...balancesOf(store, 'node', 'wallet').values()].reduce((sum, msats) => sum + msats, 0n) / 1000n

const walletName = (store: Store, { kind, pubkey }: { kind: string; pubkey: string }): string =>
  kind === 'agent' ? (listAgents(store).find((agent) => agent.pubkey === pubkey)?.name ?? pubkey.slice(0, 12)) : kind
