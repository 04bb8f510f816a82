/** `pylon demo`: two nodes, two agents, four jobs and a rented machine with play money, by public commands only; names what went over the wire. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { formatSats, msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { defaultHome } from '../../base/paths.ts'
import { earningsRoutes } from '../../control/contract/earnings.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { defineCommand } from '../command.ts'
import { json, print } from '../terminal/output.ts'
import { indent, shorten, shortId } from '../terminal/table.ts'
import { type AgentEvent, awaitNeighbour, meet, spawnNeighbour } from './demo-agents.ts'
import { offerMachine, rentMachine, wireOfRental } from './demo-machines.ts'
import { buy, SALES, SHOUT_KIND, SUMMARY_KIND, stockUp } from './demo-market.ts'
import { type Pylon, pylonIn, waitFor } from './demo-process.ts'

const AGENT_SATS = 500
const NODE_SATS = 3000
const BUYER_SATS = 500
const STOP_TRIES = 8
const STOP_AGAIN_MS = 500

interface Step {
  readonly title: string
  readonly wire: readonly string[]
}

type Tell = (title: string, wire: readonly string[]) => void

export const demoCommand = defineCommand({
  command: 'demo',
  describe: 'A tour in under a minute: two nodes, agents, paid jobs, a rented machine, zaps and earnings with play money',
  handler: async (args) => {
    const steps: Step[] = []
    const startedAt = Date.now()
    const tell: Tell = (title, wire) => {
      steps.push({ title, wire })
      if (args.json) return
      print(`[${((Date.now() - startedAt) / 1000).toFixed(1).padStart(4)} s] ${title}`)
      for (const line of wire) print(`         ${indent(line, 9)}`)
    }
    const ending = endOnSignal()
    try {
      const seller = pylonIn(defaultHome(process.env).dir, ending.signal)
      if (!args.json) print('Real protocols over real sockets on this machine; the sats are play money.\n')
      await runDemo(seller, tell, ending.signal)
      if (args.json) print(json({ network: 'sandbox', ok: true, duration_ms: Date.now() - startedAt, steps }, 2))
      else print(await epilogue(seller))
    } finally {
      ending.dispose()
    }
  },
})

async function runDemo(seller: Pylon, tell: Tell, signal: AbortSignal): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'pylon-demo-'))
  const buyer = pylonIn(work, signal)
  let isJoined = false
  try {
    const { npub, sandbox } = await startSeller(seller, tell)
    await hostAgents(seller, work, tell)
    isJoined = true
    await joinSandbox(buyer, sandbox, tell)
    for (const sale of SALES) {
      const job = await buy(buyer, npub, sale)
      const paid = job.status === 'refunded' ? `${formatSats(job.paid_msats)} paid and returned` : `${formatSats(job.paid_msats)} paid`
      tell(`Bought ${sale.title}: ${job.status}, ${paid}`, [
        `kind ${job.kind} ${shortId(job.job_id)} request`,
        ...job.events.map((event) => `kind ${event.kind} ${shortId(event.event_id)} ${event.summary}`),
        ...(job.result === null ? [] : [`"${shorten(job.result, 100)}"`]),
      ])
    }
    const rented = await rentMachine(buyer, npub)
    tell(`Rented a machine for a minute and ran a command on it: ${formatSats(rented.outcome.paid_msats)} paid`, wireOfRental(rented))
    await agentsMeet(seller, tell)
    await countEarnings(seller, tell)
  } finally {
    if (isJoined) await endSecondNode(work, signal.aborted ? STOP_TRIES : 1)
    rmSync(work, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** @param tries more than one where its start may have been cut off: the node then holds its home only a moment later. */
async function endSecondNode(home: string, tries: number): Promise<void> {
  const node = pylonIn(home, new AbortController().signal)
  for (let i = 0; i < tries; i++) {
    // Whether it ended is what is looked at, not why it was not told to.
    const ended = await node.json('stop', '--timeout', '5').catch(() => undefined)
    if (ended?.['stopped'] === true) return
    if (i + 1 < tries) await delay(STOP_AGAIN_MS)
  }
}

async function startSeller(seller: Pylon, tell: Tell) {
  await seller.json('start')
  await stockUp(seller)
  await offerMachine(seller)
  const status = await waitFor('the sandbox node to be ready', 20_000, async () => {
    const now = await seller.answer(nodeRoutes.status.response, ['status'])
    const isReady = now.relays.some((relay) => relay.state === 'connected') && now.provider.kinds.includes(SHOUT_KIND)
    return isReady ? now : undefined
  })
  if (status.identity === null || status.sandbox === null)
    throw new PylonError('demo_failed', 'The sandbox node has no identity or no sandbox.')
  tell('A sandbox node runs in the background, in both modes', [
    `relay ${status.sandbox.relay_url}   mint ${status.sandbox.mint_url}   LNURL ${status.sandbox.lnurl_base_url}`,
    `kind 31990 announces ${status.identity.npub}: sells kind ${SUMMARY_KIND} for 21 sats and kind ${SHOUT_KIND} for 5 sats`,
  ])
  return { npub: status.identity.npub, sandbox: status.sandbox }
}

async function hostAgents(seller: Pylon, work: string, tell: Tell): Promise<void> {
  await seller.json('wallet', 'fund', String(NODE_SATS))
  tell(`Funded the node wallet with ${NODE_SATS} sats`, ['bolt11 invoice of the mint (NUT-04/23), paid at the faucet, minted as ecash'])
  const neighbours = [
    { name: 'ada', about: 'Reads what her neighbours write.', zapSats: 21 },
    { name: 'bob', about: 'Counts sats and says so.', zapSats: 7 },
  ]
  for (const { name, about, zapSats } of neighbours) {
    const agent = await spawnNeighbour(seller, name, about, zapSats, work)
    await seller.json('agent', 'fund', name, String(AGENT_SATS))
    const ready = await awaitNeighbour(seller, name)
    tell(`Agent ${name} lives, with ${AGENT_SATS} sats more`, [
      `kinds 0, 10002 and 10050 introduce ${agent.npub}`,
      `zaps go to ${shorten(ready.lud06 ?? '', 60)} (registered by NIP-98)`,
    ])
  }
}

async function joinSandbox(buyer: Pylon, sandbox: { relay_url: string; mint_url: string }, tell: Tell): Promise<void> {
  await buyer.json('start', '--mode', 'host', '--relay', sandbox.relay_url, '--mint', sandbox.mint_url)
  await buyer.json('wallet', 'fund', String(BUYER_SATS))
  await waitFor('the second node to reach the relay', 15_000, async () => {
    const now = await buyer.answer(nodeRoutes.status.response, ['status'])
    return now.relays.some((relay) => relay.state === 'connected') ? true : undefined
  })
  tell('A second node with a home of its own joined the sandbox, to buy', [
    `${BUYER_SATS} sats in its wallet; it trusts only the mint, not the seller`,
  ])
}

async function agentsMeet(seller: Pylon, tell: Tell): Promise<void> {
  const events = await meet(seller, 'bob', 'ada')
  tell('The agents met: a post, a reaction, a DM, a zap and an answer', events.map(drawEvent))
}

function drawEvent(event: AgentEvent): string {
  const parts = [[wireOf(event), ...(event.eventId === null ? [] : [shortId(event.eventId)]), `${event.agent}: ${event.type}`].join(' ')]
  if (event.costMsats > 0n) parts.push(formatSats(msats(event.costMsats)))
  if (event.words !== '') parts.push(`"${shorten(event.words, 80)}"`)
  return parts.join(' ')
}

function wireOf(event: AgentEvent): string {
  if (event.type === 'dm') return 'kinds 1059/13/14'
  return event.type === 'zap' ? 'kinds 9734/9735' : `kind ${event.kind ?? '?'}`
}

async function countEarnings(seller: Pylon, tell: Tell): Promise<void> {
  const earned = await seller.answer(earningsRoutes.getEarnings.response, ['earnings'])
  if (earned.by_source.job <= 0n) throw new PylonError('demo_failed', 'The jobs were sold, but no earnings are booked.')
  if (earned.by_source.lease <= 0n) throw new PylonError('demo_failed', 'The machine was rented, but no earnings are booked.')
  tell(`Earned ${formatSats(earned.total_msats)} from others`, [
    `jobs ${formatSats(earned.by_source.job)}, machines ${formatSats(earned.by_source.lease)}`,
    `zaps between agents of one home are internal (${formatSats(earned.internal_msats)}) and not counted`,
  ])
}

/** Status, earnings and how to go on. */
async function epilogue(seller: Pylon): Promise<string> {
  return `
--- pylon status ---
${await seller.text('status')}

--- pylon earnings ---
${await seller.text('earnings', '--limit', '5')}

The sandbox node goes on running. Look around:
  pylon agent log ada            what ada did, with event ids and costs
  pylon jobs list                the jobs that were sold, each step with its reason: pylon jobs show ID
  pylon job submit --kind ${SUMMARY_KIND} --input @FILE --wait
  pylon runtime run -- uname -a  a command in a fresh runtime of this node
  pylon agent spawn --help       an agent of your own
  pylon stop                     when you have seen enough
Then for real: pylon start (README, "Earning on the open network").`
}

/** Ctrl-C ends the demo in order: the second node is stopped and its home removed. */
function endOnSignal(): { signal: AbortSignal; dispose(): void } {
  const ending = new AbortController()
  const end = () => ending.abort(new PylonError('cancelled', 'The demo was interrupted.'))
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, end)
  return {
    signal: ending.signal,
    dispose: () => {
      for (const name of ['SIGINT', 'SIGTERM'] as const) process.off(name, end)
    },
  }
}
