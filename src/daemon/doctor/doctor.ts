/** Checks what keeps a node from working, each with its next step; reads only, so it also works on a stopped node. */

import { howToStart } from '../../base/advice.ts'
import { messageOf } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { systemRandom } from '../../base/random.ts'
import { Scope } from '../../base/scope.ts'
import { getPurchase } from '../../store/buying/purchases.ts'
import { causesWithRefund, refundTokensOf } from '../../store/buying/refund-tokens.ts'
import { inspect } from '../../store/inspection.ts'
import { rentalKey } from '../../store/keys.ts'
import { countPending } from '../../store/money/approvals.ts'
import { sentRefunds, unsentRefunds } from '../../store/money/held-value.ts'
import { heldByMint } from '../../store/money/ledger.ts'
import { listMints } from '../../store/money/mints.ts'
import { listPayoutRules, troubledPayouts } from '../../store/money/payouts.ts'
import { listQuotes } from '../../store/money/quotes.ts'
import { lastRefusedLetter } from '../../store/nostr/letters.ts'
import { countGivenUp, listRefusals } from '../../store/nostr/outbox.ts'
import { getSetting } from '../../store/settings.ts'
import { LATE_WORK_KEY } from '../health.ts'
import { mintsToRestore } from '../home/purse-restore.ts'
import type { PylonNode } from '../node.ts'
import { ownerOf } from '../owner/owner.ts'
import { lightningView } from '../routes/lightning-view.ts'
import { tellOperator } from '../routes/wallet-invoices.ts'
import type { ReadServices } from '../services.ts'
import { checkBackups } from './backup-checks.ts'
import { checkBrains } from './brain-checks.ts'
import { type Check, type Examination, examineOne, failed, ok, type Report, skipped, warning } from './check.ts'
import { checkCoins, checkKeysets, checkOwedSignatures } from './coin-checks.ts'
import { checkEarning } from './earning-checks.ts'
import { checkConfig, checkDatabase, checkDisk, checkHome, checkIdentity, checkNodeVersion } from './home-checks.ts'

const MAX_SKEW_S = 30
const DAY_MS = 86_400_000

/** Each is made alone: add yours to the list, and throw where it cannot be made. */
const EXAMINATIONS: readonly Examination[] = [
  { name: 'runtime', run: () => checkNodeVersion() },
  { name: 'home', run: checkHome },
  { name: 'disk', run: checkDisk },
  { name: 'config', run: checkConfig },
  { name: 'identity', run: checkIdentity },
  { name: 'database', run: checkDatabase },
  { name: 'backups', run: checkBackups },
  { name: 'ledger', run: checkLedger },
  { name: 'audit log', run: checkAudit },
  { name: 'refunds', run: checkRefunds },
  { name: 'invoices', run: checkInvoices },
  { name: 'publishing', run: checkPublishing },
  { name: 'mints', run: checkMints },
  { name: 'lightning', run: checkLightning },
  { name: 'payouts', run: checkPayouts },
  { name: 'mints of the words', run: checkMintsToRestore },
  { name: 'keysets', run: ({ store, clock }) => checkKeysets(store, clock.now()) },
  { name: 'owed signatures', run: ({ store }) => checkOwedSignatures(store) },
  { name: 'coins', run: (_read, node) => (node === undefined ? [] : checkCoins(node)) },
  {
    name: 'relays',
    run: ({ network }, node) =>
      node === undefined
        ? skipped('relays', 'The node is stopped.', howToStart(network))
        : [...checkRelays(node), ...checkRemoteKeys(node)],
  },
  { name: 'approvals', run: checkApprovals },
  { name: 'brains', run: ({ store }) => checkBrains(store) },
  { name: 'earning', run: checkEarning },
  { name: 'owner', run: checkOwner },
  { name: 'work', run: checkWork },
  { name: 'backends', run: (_read, node) => (node === undefined ? [] : checkBackends(node)) },
  { name: 'substrates', run: (_read, node) => (node === undefined ? [] : checkSubstrates(node)) },
]

/** @param node the running node; without it what only a running one can tell is skipped. */
export async function examine(read: ReadServices, node?: PylonNode): Promise<Report> {
  // What takes too long or fails is a finding: nobody else is to hear of it.
  const scope = Scope.root('doctor', { clock: read.clock, random: systemRandom }, () => undefined)
  const found = await Promise.all(EXAMINATIONS.map((one) => examineOne(one, scope, read, node)))
  scope.end()
  const checks = found.flat()
  return { ok: checks.every((check) => check.state !== 'failed'), checks }
}

async function checkLedger({ store }: ReadServices): Promise<Check> {
  const audit = await inspect(store, 'ledger')
  // Sums of a few accounts: also a stopped node can say what it holds.
  const heldMsats = [...heldByMint(store).values()].reduce((sum, msats) => sum + msats, 0n)
  if (audit.ok) return ok('ledger', `Every entry balances and the proofs agree with the books: all wallets hold ${heldMsats / 1000n} sats.`)
  return failed('ledger', audit.problems.slice(0, 5).join(' '), 'pylon backup PATH, then report this with the log')
}

/** The log of spends, approvals and changes about money: each row by its hash. */
async function checkAudit({ store }: ReadServices): Promise<Check> {
  const verdict = await inspect(store, 'auditLog')
  if (verdict.ok) return ok('audit log', `Each of its ${verdict.rows} rows follows the one before.`)
  return failed(
    'audit log',
    `Row ${verdict.row} was changed: ${verdict.problem}.`,
    'pylon backup PATH, then look who had access to the home',
  )
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
      return `A refund of ${rentalKey.idIn(cause) !== undefined ? 'a lease' : `the job ${getPurchase(store, cause)?.eventId ?? cause}`} waits: ${reason ?? 'it was not tried yet'}`
    }),
  ]
  const sent = sentRefunds(store)
  const out = `${sent.count} of ${sent.totalSats} sats ${sent.count === 1 ? 'is' : 'are'} sent, until their customers redeem them.`
  if (problems.length === 0) return ok('refunds', sent.count === 0 ? 'None waits.' : `None waits to be made; ${out}`)
  return warning(
    'refunds',
    [...problems, ...(sent.count === 0 ? [] : [out])].join(' '),
    count === 0 ? 'pylon wallet mints list' : 'pylon wallet balance; pylon logs says why each waits',
  )
}

function checkApprovals({ store }: ReadServices): Check {
  const count = countPending(store)
  if (count === 0) return ok('approvals', 'Nothing waits for your word.')
  return warning(
    'approvals',
    `${count} ${count === 1 ? 'action of an agent waits' : 'actions of agents wait'} for your word.`,
    'pylon approvals list',
  )
}

/** Whether letters reach the owner; nothing where none is named. */
function checkOwner(read: ReadServices, node: PylonNode | undefined): Check[] {
  const { store } = read
  const config = read.config()
  const owner = ownerOf(config, node?.keyring ?? { owns: () => false })
  if (owner.pubkey === undefined)
    return owner.problem === undefined ? [] : [failed('owner', owner.problem, 'pylon config set owner.npub npub1...')]
  const stuck = lastRefusedLetter(store, owner.pubkey)
  if (stuck === undefined) return [ok('owner', `Letters go to ${config.owner.npub}.`)]
  return [
    warning(
      'owner',
      `The last letter did not arrive: ${stuck.reason ?? 'no reason'}.`,
      'Publish DM relays (kind 10050) with your client, then: pylon alerts test',
    ),
  ]
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
          : warning(name, `It was down: ${mint.reason}`, `${howToStart(read.network)}, then: pylon doctor`)
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

/** The owner's own wallet, where one is connected or should be. */
async function checkLightning(read: ReadServices, node: PylonNode | undefined): Promise<Check[]> {
  const name = 'lightning wallet'
  await node?.parts.lightning.up()?.connection.refresh()
  const found = lightningView(read)
  if (found === null) {
    if (read.config().wallet.receive_by !== 'nwc') return []
    return [failed(name, 'Sales are to be received there (wallet.receive_by), and none is connected.', 'pylon wallet connect -')]
  }
  const { id, state, reason, balance_sats, open_payments, unpaid_invoices } = found
  const open = [
    ...(open_payments === 0 ? [] : [`Nobody knows yet what became of ${open_payments} payments.`]),
    ...(state === 'ok' || unpaid_invoices === 0 ? [] : [`${unpaid_invoices} invoices made there may have been paid.`]),
  ]
  if (state === 'down')
    return [
      warning(
        `${name} nwc:${id}`,
        [`It does not answer: ${reason ?? ''}`, ...open, 'What is owed stays owed; refunds need sats at a mint meanwhile.'].join(' '),
        'See that the wallet is online; if it is gone: pylon wallet disconnect, and pylon wallet fund or invoice for what is owed',
      ),
    ]
  const held = balance_sats === null ? 'It answers.' : `It answers, and says that it holds ${balance_sats} sats.`
  return [
    open.length === 0
      ? ok(`${name} nwc:${id}`, held)
      : warning(`${name} nwc:${id}`, [held, ...open].join(' '), 'pylon wallet connect shows it'),
  ]
}

/** After a restore from the words: mints that could not be read then. */
function checkMintsToRestore({ store }: ReadServices): Check[] {
  const wanted = mintsToRestore(store)
  if (wanted.length === 0) return []
  return [
    warning('mints of the words', `What wallets of these words hold at ${wanted.join(', ')} was not read yet.`, 'pylon wallet restore'),
  ]
}

/** What wallets let leave by themselves. */
function checkPayouts({ store }: ReadServices): Check[] {
  const rules = listPayoutRules(store)
  const troubled = troubledPayouts(store)
  if (rules.length === 0) return []
  if (troubled.length === 0)
    return [ok('payouts', `${rules.length} ${rules.length === 1 ? 'wallet has one' : 'wallets have one'}; none fails.`)]
  return troubled.map(({ owner, target, state, failure }) =>
    warning(
      'payouts',
      `That of ${owner.kind} to ${target} ${state === 'stopped' ? 'is stopped' : 'fails'}: ${failure.message}`,
      state === 'stopped' ? 'Look at the address, then: pylon wallet payout set' : 'pylon wallet payout list; it is tried again by itself',
    ),
  )
}

/** What runs for long, and what the last end did not wait for. */
function checkWork({ store, clock }: ReadServices, node: PylonNode | undefined): Check[] {
  const late = getSetting<string[]>(store, LATE_WORK_KEY) ?? []
  const before = late.length === 0 ? [] : [`The last end did not wait for ${named(late)}: it is taken up where it was.`]
  const running = node?.running() ?? []
  const long = running.filter(({ sinceMs }) => clock.now() - sinceMs > LONG_WORK_MS).map(({ path }) => path)
  const now = long.length === 0 ? 'nothing for over a minute' : `for over a minute: ${named(long)}`
  const words = [...(node === undefined ? [] : [`${running.length} pieces of work run, ${now}.`]), ...before]
  if (words.length === 0) return []
  return [before.length === 0 ? ok('work', words.join(' ')) : warning('work', words.join(' '), 'pylon logs says what it was doing')]
}

const LONG_WORK_MS = 60_000
const NAMED_WORKS = 5
const named = (paths: readonly string[]) =>
  `${paths.slice(0, NAMED_WORKS).join(', ')}${paths.length > NAMED_WORKS ? ` and ${paths.length - NAMED_WORKS} more` : ''}`

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

function checkRemoteKeys(node: PylonNode): Check[] {
  const { remoteKeys } = node.parts
  if (node.keyring.locked || node.keyring.remotes().length === 0) return []
  const { health } = remoteKeys
  if (health.state === 'ok') return [ok('remote keys', 'The bunkers that hold keys of this home answer.')]
  return [warning('remote keys', health.reason ?? 'They are not asked.', health.nextStep ?? 'pylon logs')]
}

async function checkSubstrates(node: PylonNode): Promise<Check[]> {
  const part = node.parts.machines
  const machines = part.peek()
  if (machines === undefined) {
    const { reason, nextStep } = part.health as { reason?: string; nextStep?: string }
    return [{ name: 'runtimes', state: 'skipped', message: reason ?? 'They are off.', ...given({ next_step: nextStep }) }]
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
