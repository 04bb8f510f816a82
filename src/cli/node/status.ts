/** `pylon status`: the whole node at a glance. */
import { setTimeout as delay } from 'node:timers/promises'
import { howToStart } from '../../base/advice.ts'
import { formatSats } from '../../base/amounts.ts'
import { isPylonError } from '../../base/errors.ts'
import { VERSION } from '../../base/version.ts'
import type { Output } from '../../control/client.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { callNode, defineCommand, stoppedHome } from '../command.ts'
import { plain, printAnswer, printFacts, readerGone } from '../terminal/output.ts'
import { drawRows, sats, shortId } from '../terminal/table.ts'

type Status = Output<typeof nodeRoutes.status>

const REDRAW_MS = 1000
const LONG_S = 60
const MAX_NAMED = 5
const CLEAR = '\u001b[H\u001b[J'

export const statusCommand = defineCommand({
  command: 'status',
  describe: 'Show mode, agents, jobs, relays and sats',
  builder: (yargs) => yargs.option('watch', { type: 'boolean', default: false, alias: 'w', describe: 'Draw it again every second' }),
  handler: async (args) => {
    const gone = readerGone()
    for (;;) {
      process.exitCode = await show(args)
      if (!args.watch || gone.aborted) return
      await delay(REDRAW_MS)
    }
  },
})

/** @returns the exit code: 3 when no node runs. */
async function show(args: { json: boolean; sandbox: boolean; watch: boolean }): Promise<0 | 3> {
  // Only once there is something to draw, so that nothing flickers; and only where there is something to clear.
  const clear = () => args.watch && !args.json && process.stdout.isTTY && process.stdout.write(CLEAR)
  try {
    const answer = await callNode(args, nodeRoutes.status, {})
    clear()
    printAnswer(args, answer, human)
    return 0
  } catch (error) {
    if (!isPylonError(error, 'not_running')) throw error
    const { home, network } = stoppedHome(args)
    const facts = { network, running: false, version: VERSION, home: home.dir }
    clear()
    printFacts(args, facts, `running: false\nPylon is not running (home ${home.dir}); start it with: ${howToStart(network)}`)
    return 3
  }
}

function human(status: Status): string {
  const blocks = [head(status), agents(status), provider(status), runtimes(status), relays(status), refused(status), wallet(status)]
  return blocks.filter((block) => block !== '').join('\n\n')
}

function head(status: Status): string {
  const rows = [
    ['running', `pid ${status.pid}, version ${status.version}, up ${duration(status.uptime_s)}`],
    ['mode', status.mode],
    ['home', status.home],
    ['key', status.identity?.npub ?? '(none)'],
    ...(status.locked ? [['locked', 'yes; to open the keys: pylon unlock']] : []),
    ...(status.sandbox === null
      ? []
      : [['sandbox', `relay ${status.sandbox.relay_url}  mint ${status.sandbox.mint_url}  lnurl ${status.sandbox.lnurl_base_url}`]]),
    ['host', health(status.host)],
    ...(status.host.approvals_waiting === 0
      ? []
      : [['approvals', `${status.host.approvals_waiting} wait for your word: pylon approvals list`]]),
    ['provider', health(status.provider)],
    ['runtimes', health(status.runtimes)],
    ['work', work(status)],
    ...(status.store.state === 'ok' ? [] : [['store', health(status.store)]]),
    ...(status.backups.state === 'degraded' ? [['backups', health(status.backups)]] : []),
    ...(status.remote_keys.state === 'degraded' ? [['remote keys', health(status.remote_keys)]] : []),
  ]
  return drawRows(rows)
}

/** How much runs, and by name what runs for long. */
function work({ work: { count, oldest }, started_at, uptime_s }: Status): string {
  const nowMs = Date.parse(started_at) + uptime_s * 1000
  const secondsOf = (since: string) => Math.floor((nowMs - Date.parse(since)) / 1000)
  const long = oldest.filter(({ since }) => secondsOf(since) > LONG_S)
  const names = long.slice(0, MAX_NAMED).map(({ name, since }) => `${plain(name)} (${duration(secondsOf(since))})`)
  const more = long.length > names.length ? [`${long.length - names.length} more`] : []
  return `${count} running${long.length === 0 ? '' : `; for over a minute: ${[...names, ...more].join(', ')}`}`
}

function agents({ host }: Status): string {
  if (host.agents.length === 0) return ''
  const rows = host.agents.map((agent) => [
    plain(agent.name),
    agent.state,
    sats(agent.balance_sats),
    String(agent.tick_count),
    agent.next_tick_at ?? '-',
    plain(agent.reason ?? ''),
  ])
  return `Agents\n${drawRows([['name', 'state', 'balance', 'ticks', 'next tick', ''], ...rows])}`
}

function provider({ provider, earnings }: Status): string {
  const jobs = Object.entries(provider.jobs).map(([state, count]) => `${count} ${state}`)
  const rows = [
    ['kinds', provider.kinds.join(', ') || '(none)'],
    ...provider.backends.map((backend) => [`backend ${backend.name}`, health(backend), backend.models.join(', ')]),
    ['jobs', jobs.join(', ') || '(none yet)'],
    ['earned', formatSats(earnings.total_msats)],
    ...(provider.verifier === null ? [] : [['verifier', provider.verifier]]),
  ]
  return `Provider\n${drawRows(rows)}`
}

function runtimes({ runtimes }: Status): string {
  if (runtimes.substrates.length === 0) return ''
  const states = Object.entries(runtimes.by_state).map(([state, count]) => `${count} ${state}`)
  const rows = [
    ...runtimes.substrates.map((one) => [
      `substrate ${one.provider}`,
      one.usable ? `usable${one.isolated ? ', isolated' : ''}` : 'not usable',
      plain(one.reason ?? ''),
    ]),
    ...runtimes.offers.map((offer) => [
      `class ${offer.runtime_class}`,
      `${offer.free} of ${offer.total} free, ${formatSats(offer.price_msats_per_hour)} an hour`,
      offer.published ? 'offered' : `not offered: ${plain(offer.reason ?? '')}`,
    ]),
    ['runtimes', states.join(', ') || '(none)'],
    ...runtimes.leases.map((lease) => [
      `lease ${lease.runtime_id}`,
      `${lease.state}, ${formatSats(lease.amount_msats)}, to ${shortId(lease.tenant)}`,
      lease.ends_at ?? '',
    ]),
  ]
  return `Machines\n${drawRows(rows)}`
}

function relays({ relays }: Status): string {
  if (relays.length === 0) return ''
  const rows = relays.map((relay) => [
    relay.url,
    relay.state,
    relay.last_event_at ?? '-',
    relay.cursor_lag_s === null ? '-' : duration(relay.cursor_lag_s),
    String(relay.outbox_depth),
    plain(relay.reason ?? ''),
  ])
  return `Relays\n${drawRows([['url', 'state', 'last event', 'lag', 'outbox', ''], ...rows])}`
}

function refused({ refused }: Status): string {
  if (refused.length === 0) return ''
  const rows = refused
    .slice(0, 10)
    .map(({ relay, reason, events, last_at, words }) => [relay, reason, String(events), last_at, plain(words)])
  return `Refused by relays\n${drawRows([['url', 'reason', 'events', 'last', ''], ...rows])}`
}

function wallet({ wallet }: Status): string {
  const rows = [
    ['balance', `${sats(wallet.balance_sats)} (node, customer and agents together)`],
    ...(wallet.at_risk_sats > 0n ? [['outcome unknown', sats(wallet.at_risk_sats)]] : []),
    ...(wallet.state === 'ok' ? [] : [['state', health(wallet)]]),
    ...wallet.mints.map((mint) => [mint.url, sats(mint.balance_sats), mintWords(mint)]),
    ...lightning(wallet.lightning),
  ]
  return `Wallet\n${drawRows(rows)}`
}

/** Beside the balance: what is there is not in the books. */
function lightning(found: Status['wallet']['lightning']): string[][] {
  if (found === undefined) return []
  const { id, balance_sats, state, reason } = found
  const why = reason === undefined ? '' : `: ${plain(reason)}`
  return [
    [`nwc:${id}`, balance_sats === null ? '' : sats(balance_sats), `your Lightning wallet${state === 'ok' ? '' : `, ${state}${why}`}`],
  ]
}

function mintWords({ state, reason, keysets_set_aside: setAside = [] }: Status['wallet']['mints'][number]): string {
  const words = [
    ...(state === 'ok' ? [] : [`down: ${reason ?? ''}`]),
    ...(setAside.length === 0
      ? []
      : [`keysets set aside: ${setAside.map(({ keyset_id: id, reason: why }) => `${id} (${why})`).join(', ')}`]),
  ]
  return plain(words.join('; '))
}

function health(part: { state: string; reason?: string | undefined; next_step?: string | undefined }): string {
  const why = part.reason === undefined ? '' : `: ${plain(part.reason)}`
  return `${part.state}${why}${part.next_step === undefined ? '' : ` (next: ${part.next_step})`}`
}

function duration(seconds: number): string {
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60]
  if (days > 0) return `${days}d ${hours}h`
  return hours > 0 ? `${hours}h ${minutes}m` : minutes > 0 ? `${minutes}m ${seconds % 60}s` : `${seconds}s`
}
