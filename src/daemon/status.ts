/** The whole node in one answer. */
import { msats } from '../base/amounts.ts'
import { rfc3339 } from '../base/clock.ts'
import { VERSION } from '../base/version.ts'
import type { Output } from '../control/client.ts'
import type { nodeRoutes } from '../control/contract/node.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { listAgents } from '../store/agents/agents.ts'
import { earningsSummary } from '../store/money/earnings.ts'
import { type HeldValue, heldValue } from '../store/money/held-value.ts'
import { listRefusals } from '../store/nostr/outbox.ts'
import { countJobs } from '../store/selling/jobs.ts'
import { countRuntimes } from '../store/selling/runtimes.ts'
import { type Health, healthFields, OK } from './health.ts'
import type { PylonNode } from './node.ts'
import { agentSummary } from './routes/agents.ts'

type Status = Output<typeof nodeRoutes.status>

const MAX_REFUSALS = 50
const NO_MINT: Health = { state: 'degraded', reason: 'no_mint', nextStep: 'pylon wallet mints add URL' }

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
    earnings: { total_msats: msats(earningsSummary(node.store, { limit: 0 }).totalMsats) },
    runtimes: runtimesOf(node),
  }
}

function runtimesOf(node: PylonNode): Status['runtimes'] {
  const part = node.parts.machines
  const machines = part.peek()
  if (machines === undefined || part.health.state !== 'ok') {
    return { ...healthFields(part.health), substrates: [], by_state: { ...countRuntimes(node.store) }, offers: [], leases: [] }
  }
  const { state, reason, substrates, offers, leases, counts } = machines.status()
  return {
    ...healthFields(state === 'ok' ? OK : { state, reason: reason ?? 'unknown', nextStep: 'pylon doctor' }),
    substrates: substrates.map(({ provider, usable, isolated, reason, nextStep }) => ({
      ...{ provider, usable, isolated },
      ...(reason === undefined ? {} : { reason }),
      ...(nextStep === undefined ? {} : { next_step: nextStep }),
    })),
    by_state: { ...counts },
    offers: offers.map(({ runtimeClass, provider, priceMsatsPerHour, free, total, published, reason }) => ({
      ...{ runtime_class: runtimeClass, provider, price_msats_per_hour: msats(priceMsatsPerHour), free, total, published },
      ...(reason === undefined ? {} : { reason }),
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
  const part = node.parts.host
  const agents = listAgents(node.store).map((agent) => agentSummary(node.store, agent))
  const host = part.peek()
  if (host === undefined || part.health.state !== 'ok') return { ...healthFields(part.health), agents }
  const { state, reason } = host.status()
  return { ...healthFields(state === 'ok' ? OK : { state, reason: reason ?? 'unknown', nextStep: 'pylon agent list' }), agents }
}

function providerOf(node: PylonNode): Status['provider'] {
  const verifier = node.parts.nostr.peek()?.verifier ?? null
  const part = node.parts.provider
  const provider = part.peek()
  if (provider === undefined || part.health.state !== 'ok') {
    return { ...healthFields(part.health), kinds: [], verifier, backends: [], jobs: countJobs(node.store) }
  }
  const { state, reason, kinds, backends, jobs } = provider.status()
  return {
    ...healthFields(state === 'ok' ? OK : { state, reason: reason ?? 'unknown', ...nextStepOf(reason) }),
    kinds: [...kinds],
    verifier,
    backends: backends.map((backend) => ({ ...backend, models: [...backend.models] })),
    jobs,
  }
}

function nextStepOf(reason: string | undefined): { nextStep?: string } {
  return reason?.startsWith('no_mint') ? { nextStep: 'pylon wallet mints add URL' } : {}
}

function relaysOf(node: PylonNode): Status['relays'] {
  const nostr = node.parts.nostr.peek()
  if (nostr === undefined) {
    const { reason } = node.parts.nostr.health as { reason?: string }
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
    ...(relay.reason === undefined ? {} : { reason: relay.reason }),
    last_event_at: relay.lastEventAt === undefined ? null : rfc3339(relay.lastEventAt),
    cursor_lag_s: relay.cursorLagS ?? null,
    outbox_depth: relay.outboxDepth,
  }))
}

function walletOf(node: PylonNode, held: HeldValue): Status['wallet'] {
  const down = held.mints.filter((mint) => mint.state === 'down')
  const part = node.parts.wallets.health
  const health: Health =
    part.state !== 'ok'
      ? part
      : held.mints.length === 0
        ? NO_MINT
        : down.length > 0
          ? { state: 'degraded', reason: `mint_unreachable: ${down.map((mint) => mint.url).join(', ')}`, nextStep: 'pylon doctor' }
          : OK
  return { ...healthFields(health), balance_sats: held.balanceSats, at_risk_sats: held.atRiskSats, mints: held.mints.map(mintView) }
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
