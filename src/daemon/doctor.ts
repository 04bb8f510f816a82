/** Checks what keeps a node from working, each with its next step; reads only, so it also works on a stopped node. */
import { statSync } from 'node:fs'
import { loadConfig } from '../base/config.ts'
import { messageOf } from '../base/errors.ts'
import { isProtected, readIdentity } from '../nostr/identity.ts'
import { unsentRefunds } from '../store/held-value.ts'
import { auditLedger, balancesByPrefix } from '../store/ledger.ts'
import { listMints } from '../store/mints.ts'
import { countGivenUp, listRefusals } from '../store/outbox.ts'
import { getPurchase } from '../store/purchases.ts'
import { listQuotes } from '../store/quotes.ts'
import { causesWithRefund, refundTokensOf } from '../store/refund-tokens.ts'
import { text } from '../store/row.ts'
import { type Check, failed, ok, type Report, skipped, warning } from './check.ts'
import { checkCoins, checkKeysets, checkOwedSignatures } from './doctor-coins.ts'
import type { PylonNode } from './node.ts'
import { freeBytes } from './prepare-home.ts'
import { tellOperator } from './routes/wallet-invoices.ts'
import type { ReadServices } from './services.ts'

const LOW_DISK_BYTES = 200 * 1024 * 1024
const FULL_DISK_BYTES = 1_000_000
const MIN_NODE = [22, 19] as const
const MAX_SKEW_S = 30
const DAY_MS = 86_400_000

/** @param node the running node; without it what only a running one can tell is skipped. */
export async function examine(read: ReadServices, node?: PylonNode): Promise<Report> {
  const checks = [checkNodeVersion(), checkHome(read), checkDisk(read), checkConfig(read), checkIdentity(read)]
  checks.push(
    checkDatabase(read),
    checkLedger(read),
    checkRefunds(read),
    checkInvoices(read),
    checkPublishing(read),
    ...(await checkMints(read, node)),
  )
  checks.push(...checkKeysets(read.store, read.clock.now()), ...checkOwedSignatures(read.store))
  if (node !== undefined) checks.push(...(await checkCoins(node)))
  if (node === undefined) checks.push({ name: 'relays', state: 'skipped', message: 'The node is stopped.', next_step: 'pylon start' })
  else checks.push(...checkRelays(node), ...checkBackends(node), ...(await checkSubstrates(node)))
  return { ok: checks.every((check) => check.state !== 'failed'), checks }
}

function checkNodeVersion(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const isNew = major > MIN_NODE[0] || (major === MIN_NODE[0] && minor >= MIN_NODE[1])
  const message = `Node ${process.versions.node} on ${process.platform}-${process.arch}`
  return isNew ? ok('runtime', message) : failed('runtime', message, `Use Node ${MIN_NODE.join('.')} or newer.`)
}

function checkHome({ home }: ReadServices): Check {
  const mode = statSync(home.dir).mode & 0o777
  if ((mode & 0o077) === 0) return ok('home', `${home.dir} is private.`)
  return failed('home', `${home.dir} is open to others (mode ${mode.toString(8)}).`, `chmod 700 ${home.dir}`)
}

function checkDisk({ home }: ReadServices): Check {
  const free = freeBytes(home.dir)
  const message = `${Math.floor(free / 1024 / 1024)} MB are free.`
  if (free >= LOW_DISK_BYTES) return ok('disk', message)
  return (free < FULL_DISK_BYTES ? failed : warning)('disk', message, 'Free some space: a full disk stops the node from taking work.')
}

function checkConfig({ home }: ReadServices): Check {
  try {
    loadConfig(home.config)
    return ok('config', `${home.config} is valid.`)
  } catch (error) {
    return failed('config', messageOf(error), `Mend it, or move it away: ${home.config}`)
  }
}

function checkIdentity({ home }: ReadServices): Check {
  try {
    const identity = readIdentity(home.identity)
    if (identity === undefined) return failed('identity', 'There is no identity.', 'pylon init')
    const protection = isProtected(identity) ? 'under a passphrase' : 'in clear in a private file'
    return ok('identity', `${identity.npub}, its keys ${protection}.`)
  } catch (error) {
    return failed('identity', messageOf(error), 'pylon restore PATH')
  }
}

function checkDatabase({ store }: ReadServices): Check {
  const rows = store
    .sql('PRAGMA integrity_check(5)')
    .all()
    .map((row) => text(row, 'integrity_check'))
  const foreign = store.sql('PRAGMA foreign_key_check').all().length
  if (rows[0] === 'ok' && foreign === 0) return ok('database', 'The database is whole.')
  return failed(
    'database',
    rows[0] === 'ok' ? `${foreign} rows point to nothing.` : rows.join('; '),
    'pylon stop, then: pylon restore PATH',
  )
}

function checkLedger({ store }: ReadServices): Check {
  const audit = auditLedger(store)
  // Sums of a few accounts: also a stopped node can say what it holds.
  const heldMsats = [...balancesByPrefix(store, '')].reduce((sum, [account, msats]) => (/\/wallet\//.test(account) ? sum + msats : sum), 0n)
  if (audit.ok) return ok('ledger', `Every entry balances and the proofs agree with the books: all wallets hold ${heldMsats / 1000n} sats.`)
  return failed('ledger', audit.problems.slice(0, 5).join(' '), 'pylon backup PATH, then report this with the log')
}

/** Of both sides: what we owe and could not send, what came for us and could not be redeemed. */
function checkRefunds({ store }: ReadServices): Check {
  const { count, totalSats } = unsentRefunds(store)
  const waiting = causesWithRefund(store)
  const problems = [
    ...(count === 0
      ? []
      : [`${count} refunds of ${totalSats} sats to customers are not made yet: their mint must answer and hold enough.`]),
    ...waiting.slice(0, 5).map((cause) => {
      const reason = refundTokensOf(store, cause).find((refund) => refund.state === 'waiting')?.reason
      return `A refund of ${cause.startsWith('rental:') ? 'a lease' : `the job ${getPurchase(store, cause)?.eventId ?? cause}`} waits: ${reason ?? 'it was not tried yet'}`
    }),
  ]
  if (problems.length === 0) return ok('refunds', 'None waits.')
  return warning(
    'refunds',
    problems.join(' '),
    count === 0 ? 'pylon wallet mints list' : 'pylon wallet balance; pylon logs says why each waits',
  )
}

/** What relays took of what we published, in the last day. */
function checkPublishing({ store, clock }: ReadServices): Check {
  const since = clock.now() - DAY_MS
  const lost = countGivenUp(store, since)
  const refusals = listRefusals(store, 100).filter(({ lastAt }) => lastAt > since)
  if (lost === 0 && refusals.length === 0) return ok('publishing', 'Relays took all that was published in the last day.')
  const said = refusals
    .slice(0, 5)
    .map(({ relay, reason, events, words }) => `${relay} refused ${events} (${reason}), last: ${words || 'no words'}.`)
  const reached = lost === 0 ? 'All of it reached some relay.' : `${lost} messages of the last day were taken by no relay.`
  const dates = refusals.some(({ words }) => /creat|date|future|time/i.test(words))
  return warning(
    'publishing',
    [reached, ...said].join(' '),
    dates
      ? 'Set the time (timedatectl), or use other relays: pylon config set node.relays \'["wss://..."]\''
      : 'Mend what they name, or use other relays: pylon config set node.relays \'["wss://..."]\'',
  )
}

/** A moment between paid and issued is as it should be. */
const ISSUING_MS = 60_000
const NAMED_INVOICES = 5

/** What was paid for and is not issued: only the operator of the mint can tell. */
function checkInvoices({ store, clock }: ReadServices): Check {
  const paid = listQuotes(store, { states: ['paid'], limit: 1000 })
  const stuck = paid.filter((quote) => quote.mintingError !== null || quote.reason !== null || quote.createdAt < clock.now() - ISSUING_MS)
  if (stuck.length === 0) return ok('invoices', 'None is paid and not issued.')
  const total = stuck.reduce((sum, quote) => sum + quote.amountSats, 0n)
  const named = stuck.slice(0, NAMED_INVOICES).map(tellOperator)
  return warning(
    'invoices',
    `${total} sats were paid for ${stuck.length} invoices that are not issued. ${named.join('. ')}.`,
    'Tell the operator of the mint; the node goes on asking: pylon wallet invoices --state paid',
  )
}

async function checkMints(read: ReadServices, node: PylonNode | undefined): Promise<Check[]> {
  const mints = listMints(read.store)
  if (mints.length === 0) return [warning('mints', 'No mint is configured: nothing can be charged or paid.', 'pylon wallet mints add URL')]
  return await Promise.all(
    mints.map(async (mint): Promise<Check> => {
      const name = `mint ${mint.url}`
      if (node === undefined) {
        return mint.state === 'ok'
          ? ok(name, 'It answered last.')
          : warning(name, `It was down: ${mint.reason}`, 'pylon start, then: pylon doctor')
      }
      return await askMint(node, mint.url, name)
    }),
  )
}

async function askMint({ dialer, clock }: PylonNode, url: string, name: string): Promise<Check> {
  try {
    const { status, headers } = await dialer.fetch(`${url}/v1/info`, { timeoutMs: 5000 })
    if (status !== 200) return failed(name, `It answers ${status}.`, 'Wait for the mint, or add another: pylon wallet mints add URL')
    const skewS = Math.round(Math.abs(clock.now() - Date.parse(headers['date'] ?? '')) / 1000)
    if (skewS > MAX_SKEW_S)
      return warning(
        name,
        `It answers, and its clock differs from ours by ${skewS} s.`,
        'Set the time (timedatectl): relays refuse events of the future.',
      )
    return ok(name, 'It answers.')
  } catch (error) {
    return failed(name, messageOf(error), 'Check the network; sats at the mint stay there.')
  }
}

function checkRelays(node: PylonNode): Check[] {
  const relays = node.parts.nostr.peek()?.health() ?? []
  if (relays.length === 0) return [failed('relays', 'No relay is connected.', node.keyring.locked ? 'pylon unlock' : 'pylon logs')]
  const anyUp = relays.some((relay) => relay.state === 'connected')
  return relays.map((relay) => {
    const name = `relay ${relay.url}`
    if (relay.state === 'connected') return ok(name, 'It is connected.')
    const message = `It is ${relay.state}: ${relay.reason ?? 'no answer yet'}`
    return (anyUp || relay.state === 'connecting' ? warning : failed)(
      name,
      message,
      'Check the network, or set others: pylon config set node.relays \'["wss://..."]\'',
    )
  })
}

async function checkSubstrates(node: PylonNode): Promise<Check[]> {
  const part = node.parts.machines
  const machines = part.peek()
  if (machines === undefined) {
    const { reason, nextStep } = part.health as { reason?: string; nextStep?: string }
    return [
      {
        name: 'runtimes',
        state: 'skipped',
        message: reason ?? 'They are off.',
        ...(nextStep === undefined ? {} : { next_step: nextStep }),
      },
    ]
  }
  // Whether sizes hold is not believed but tried.
  await machines.proveSizes()
  const { substrates } = machines.status()
  const checks = substrates.map(({ provider, usable, isolated, reason, nextStep }) => {
    const name = `substrate ${provider}`
    const step = nextStep ?? 'docs/runtimes.md says how each one is set up.'
    if (!usable) return warning(name, reason ?? 'It is not usable.', step)
    if (reason !== undefined) return warning(name, reason, step)
    if (isolated) return ok(name, 'It is usable, also for strangers.')
    return warning(name, 'It is usable by you and the allowlist: nothing isolates runtimes there, so nothing can be sold.', step)
  })
  const absent = OTHER_SUBSTRATES.filter(([provider]) => !substrates.some((one) => one.provider === provider))
  return [...checks, ...absent.map(([provider, nextStep]) => skipped(`substrate ${provider}`, 'It is not set up.', nextStep))]
}

/** How to get those that are not there. */
const OTHER_SUBSTRATES: readonly (readonly [string, string])[] = [
  ['local', 'pylon config set runtimes.local.enabled true'],
  ['incus', 'Follow docs/incus.md, then: pylon config set runtimes.incus.enabled true'],
  ['microvm', 'pylon config set runtimes.microvm.spawner_urls \'["http://127.0.0.1:8080"]\''],
  ['fly', 'Set runtimes.fly.app_name, image and token_file (docs/runtimes.md).'],
  ['workers', 'Set runtimes.workers.base_url and runtime_url (docs/runtimes.md).'],
]

function checkBackends(node: PylonNode): Check[] {
  const backends = node.parts.provider.peek()?.status().backends ?? []
  return backends.map((backend) => {
    const name = `backend ${backend.name}`
    if (backend.state === 'ok') return ok(name, backend.models.length > 0 ? `It serves ${backend.models.join(', ')}.` : 'It works.')
    return warning(
      name,
      backend.reason ?? 'It does not work.',
      'Its kinds are not sold until it does; pylon config show lists the settings of the provider.',
    )
  })
}
