/** The whole node in one answer. */

import { msats } from '../base/amounts.ts'
import { rfc3339 } from '../base/clock.ts'
import { given } from '../base/given.ts'
import { VERSION } from '../base/version.ts'
import type { Output } from '../control/client.ts'
import type { nodeRoutes } from '../control/contract/node.ts'
import { readAgents } from '../host/view.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { countPending } from '../store/money/approvals.ts'
import { type HeldValue, heldValue } from '../store/money/held-value.ts'
import { earnedInAll } from '../store/money/sums.ts'
import { listRefusals } from '../store/nostr/outbox.ts'
import { countJobs } from '../store/selling/jobs.ts'
import { countRuntimes } from '../store/selling/runtimes.ts'
import { backupLog } from './backup/backup-log.ts'
import { type Health, healthFields, OK } from './health.ts'
import type { PylonNode } from './node.ts'
import { lightningView } from './routes/lightning-view.ts'

type Status = Output<typeof nodeRoutes.status>

const MAX_REFUSALS = 50
const MAX_WORK = 50

export function statusOf(node: PylonNode): Status {
  const held = heldValue(node.store)
  return {
    running: true,
    version: VERSION,
    home: node.home.dir,
    pid: process.pid,
    started_at: rfc3339(node.startedAt),
    uptime_s: Math.max(0, Math.floor((node.clock.now() - node.startedAt) / 1000)),
    mode: node.mode,
    locked: node.keyring.locked,
    sandbox: sandboxOf(node),
    identity: { npub: node.identity.npub, pubkey: node.identity.pubkey },
    host: hostOf(node),
    provider: providerOf(node),
    relays: relaysOf(node),
    refused: listRefusals(node.store, MAX_REFUSALS).map(({ relay, reason, events, firstAt, lastAt, words }) => ({
      ...{ relay, reason, events, words },
      since: rfc3339(firstAt),
      last_at: rfc3339(lastAt),
    })),
    wallet: walletOf(node, held),
    store: healthFields(storeHealth(node)),
    backups: backupsOf(node),
    remote_keys: healthFields(node.parts.remoteKeys.health),
    earnings: { total_msats: earnedInAll(node.store.sql) },
    work: workOf(node),
    runtimes: runtimesOf(node),
  }
}

function backupsOf({ store, parts }: PylonNode): Status['backups'] {
  const { made, failure } = backupLog(store)
  const last = made.at(-1)
  return {
    ...healthFields(parts.backups.health),
    last_at: last === undefined ? null : rfc3339(last.at),
    last_file: last?.file ?? null,
    failed_at: failure === null ? null : rfc3339(failure.at),
  }
}

function workOf(node: PylonNode): Status['work'] {
  const running = node.running()
  const oldest = running.slice(0, MAX_WORK).map(({ path, sinceMs }) => ({ name: path, since: rfc3339(sinceMs) }))
  return { count: running.length, oldest }
}

function runtimesOf(node: PylonNode): Status['runtimes'] {
  const health = healthFields(node.parts.machines.health)
  const machines = node.parts.machines.up()
  if (machines === undefined) return { ...health, substrates: [], by_state: { ...countRuntimes(node.store) }, offers: [], leases: [] }
  const { substrates, offers, leases, counts } = machines.status()
  return {
    ...health,
    substrates: substrates.map(({ provider, usable, isolated, reason, nextStep }) => ({
      ...{ provider, usable, isolated },
      ...given({ reason, next_step: nextStep }),
    })),
    by_state: { ...counts },
    offers: offers.map(({ runtimeClass, provider, priceMsatsPerHour, free, total, published, reason }) => ({
      ...{ runtime_class: runtimeClass, provider, price_msats_per_hour: msats(priceMsatsPerHour), free, total, published },
      ...given({ reason }),
    })),
    leases: leases.map((lease) => ({
      lease_id: lease.id,
      runtime_id: lease.runtimeId,
      tenant: npubOf(lease.tenant),
      state: lease.state,
      amount_msats: msats(lease.amountMsats),
      ends_at: lease.endsAt === null ? null : rfc3339(lease.endsAt),
    })),
  }
}

function sandboxOf({ surroundings: { sandbox } }: PylonNode): Status['sandbox'] {
  if (sandbox === undefined) return null
  const { relayUrl, mintUrl, lnurlBaseUrl } = sandbox.urls
  const { state, reason } = healthFields(sandbox.health())
  const urls = { relay_url: relayUrl, mint_url: mintUrl, lnurl_base_url: lnurlBaseUrl }
  return reason === undefined ? { ...urls, state } : { ...urls, state, reason }
}

function hostOf(node: PylonNode): Status['host'] {
  const agents = readAgents(node.store)
  return { ...healthFields(node.parts.host.health), agents, approvals_waiting: countPending(node.store) }
}

function providerOf(node: PylonNode): Status['provider'] {
  const verifier = node.parts.nostr.peek()?.verifier ?? null
  const health = healthFields(node.parts.provider.health)
  const provider = node.parts.provider.up()
  if (provider === undefined) return { ...health, kinds: [], verifier, backends: [], jobs: countJobs(node.store) }
  const { kinds, backends, jobs } = provider.status()
  return {
    ...health,
    kinds: [...kinds],
    verifier,
    backends: backends.map((backend) => ({ ...backend, models: [...backend.models] })),
    jobs,
  }
}

function relaysOf(node: PylonNode): Status['relays'] {
  const nostr = node.parts.nostr.peek()
  if (nostr === undefined) {
    const { reason } = healthFields(node.parts.nostr.health)
    return node.surroundings.relays.map((url) => ({
      url,
      state: 'down',
      reason: reason ?? 'not started',
      last_event_at: null,
      cursor_lag_s: null,
      outbox_depth: 0,
    }))
  }
  return nostr.health().map((relay) => ({
    url: relay.url,
    state: relay.state,
    ...given({ reason: relay.reason }),
    last_event_at: relay.lastEventAt === undefined ? null : rfc3339(relay.lastEventAt),
    cursor_lag_s: relay.cursorLagS ?? null,
    outbox_depth: relay.outboxDepth,
  }))
}

function walletOf(node: PylonNode, held: HeldValue): Status['wallet'] {
  return {
    ...healthFields(node.parts.wallets.health),
    balance_sats: held.balanceSats,
    at_risk_sats: held.atRiskSats,
    mints: held.mints.map(mintView),
    ...given({ lightning: lightningOf(node) }),
  }
}

function lightningOf(node: PylonNode): Status['wallet']['lightning'] {
  const found = lightningView(node)
  if (found === null) return undefined
  const { id, balance_sats, state, reason } = found
  return { id, balance_sats, state, ...given({ reason: reason ?? undefined }) }
}

function mintView(mint: HeldValue['mints'][number]): Status['wallet']['mints'][number] {
  return {
    url: mint.url,
    balance_sats: mint.balanceSats,
    state: mint.state,
    ...(mint.reason === null ? {} : { reason: mint.reason }),
    ...(mint.setAside.length === 0 ? {} : { keysets_set_aside: mint.setAside.map(({ id, reason }) => ({ keyset_id: id, reason })) }),
  }
}

function storeHealth({ store }: PylonNode): Health {
  return store.health.state === 'ok' ? OK : store.health
}
