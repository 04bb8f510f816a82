/** What the commands of `pylon runtime` share: which node is meant, the call with its progress on stderr, and how a runtime is drawn. */
import { randomUUID } from 'node:crypto'
import type { Argv } from 'yargs'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Answer, Output } from '../../control/client.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { type ArgsOf, callNode } from '../command.ts'
import { argument, flagOption, textOption } from '../options.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { plain, printAnswer, printRaw } from '../terminal/output.ts'
import { drawFields } from '../terminal/table.ts'
import { one, wholeNumberIf } from '../terminal/values.ts'
import { interruptible } from '../terminal/waiting.ts'

export type RuntimeAnswer = Output<typeof runtimesRoutes.askRuntime>
export type Paid = Output<typeof runtimesRoutes.commandRuntime>
export type Fields = Record<string, unknown>
type Command = Fields & { command: string }

const STATUS_WAIT_S = 20
/** Beyond what the command may take, so that the node's own answer about a timeout arrives. */
const GRACE_MS = 600_000

export const PROTOCOLS = ['acp', 'pi'] as const

export const idOf = argument('Runtime id')
export const shellOption = { type: 'string', array: true, describe: 'The command; one argument is a shell script' } as const

/** Which node is commanded. */
export function withTarget<T>(yargs: Argv<T>) {
  return yargs
    .option('server', textOption('npub of the node whose machines are meant (this node by default)'))
    .option('local', flagOption('Straight to this node, without a relay'))
}

export type Target = ArgsOf<typeof withTarget>

/** For commands that change something. */
export function withCall<T>(yargs: Argv<T>) {
  return withTarget(yargs).option('timeout', textOption('Seconds to wait for the answer')).option('idempotency-key', idempotencyOption)
}

/** For commands that may cost. */
export function withPrice<T>(yargs: Argv<T>) {
  return withCall(yargs)
    .option('max-sats', textOption('The most that the lease may cost, with fees (100)'))
    .option('pay-with', {
      choices: ['invoice', 'token'] as const,
      default: 'invoice' as const,
      describe: 'Lightning, or a locked Cashu token',
    })
}

type CallArgs = ArgsOf<typeof withCall> & Partial<Pick<ArgsOf<typeof withPrice>, 'maxSats' | 'payWith'>>

/** Sends a command that changes something; its statuses go to stderr as they come. */
export async function runtimeCall(args: CallArgs, command: Command): Promise<Answer<Paid>> {
  const key = spendingCall(args).idempotencyKey ?? randomUUID()
  const request = {
    ...targetOf(args),
    command,
    ...given({
      max_sats: wholeNumberIf(args.maxSats, '--max-sats', 0),
      pay_with: args.payWith,
      timeout_s: wholeNumberIf(args.timeout, '--timeout'),
    }),
  }
  const timeoutMs = request.timeout_s === undefined ? 7 * 86_400_000 : request.timeout_s * 1000 + GRACE_MS
  const goesOn = `The command goes on where it was sent. The same command with --idempotency-key ${key} takes it up; what it cost: pylon runtime rentals`
  return await interruptible(
    () => goesOn,
    async (signal) => {
      const over = new AbortController()
      const call = callNode(args, runtimesRoutes.commandRuntime, request, { idempotencyKey: key, timeoutMs, signal })
      const told = tellStatuses(args, key, AbortSignal.any([over.signal, signal]))
      try {
        return await call.finally(() => over.abort())
      } finally {
        await told
      }
    },
  )
}

/** The same, with what comes of it printed. */
export async function command(args: CallArgs, fields: Command, draw: (answer: Paid) => string): Promise<void> {
  printAnswer(args, await runtimeCall(args, fields), draw)
}

/** Sends a command that only looks, and prints what it sees. */
export async function query(args: Target, fields: Command, draw: (answer: RuntimeAnswer) => string): Promise<void> {
  printAnswer(args, await runtimeQuery(args, fields), draw)
}

/** Sends a command that only looks. */
export async function runtimeQuery(args: Target, command: Command): Promise<Answer<RuntimeAnswer>> {
  const answer = await callNode(args, runtimesRoutes.askRuntime, { ...targetOf(args), command })
  if (answer.value.via === 'straight' && !args.local) process.stderr.write('[control] no relay answers: this node was asked straight\n')
  return answer
}

function targetOf({ server, local }: Target) {
  return { ...given({ server: server === undefined ? undefined : one(server, '--server') }), ...(local ? { local } : {}) }
}

async function tellStatuses(args: Target, key: string, over: AbortSignal): Promise<void> {
  let after = 0
  const read = async (wait: number, signal: AbortSignal | undefined) => {
    const input = { key, after: String(after), wait: String(wait) }
    const answer = await callNode(args, runtimesRoutes.commandStatuses, input, signal === undefined ? {} : { signal })
    for (const { phase, message } of answer.value.statuses) process.stderr.write(`[control] ${phase}: ${plain(message ?? '')}\n`)
    after += answer.value.statuses.length
  }
  try {
    while (!over.aborted) await read(STATUS_WAIT_S, over)
  } catch (error) {
    if (!isPylonError(error, 'cancelled')) return
  }
  // What came with the answer, which says more than that nothing more could be heard.
  await read(0, undefined).catch(() => undefined)
}

export function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {}
}

/** The members of a list in a payload. */
export function listIn(payload: unknown, name: string): Fields[] {
  const list = fieldsOf(payload)[name]
  return Array.isArray(list) ? list.map(fieldsOf) : []
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** One runtime for people. */
export function drawRuntime(runtime: Fields): string {
  const metadata = fieldsOf(runtime['metadata'])
  const lease = fieldsOf(metadata['lease'])
  const rows: [string, string][] = [
    ['Runtime', textOf(runtime['runtime_id'])],
    ['Provider', joined(', ', textOf(runtime['provider']), textOf(runtime['region']))],
    ['Class', textOf(runtime['runtime_class']) || '-'],
    ['Phase', textOf(runtime['lifecycle_phase'])],
  ]
  const state = textOf(metadata['state'])
  if (state !== '') rows.push(['State', joined(': ', state, textOf(metadata['state_reason']))])
  const protocols = runtime['protocol_compatibility']
  if (Array.isArray(protocols) && protocols.length > 0) rows.push(['Protocols', protocols.map(textOf).join(', ')])
  if (textOf(lease['state']) !== '') rows.push(['Lease', joined(', until ', textOf(lease['state']), textOf(lease['ends_at']))])
  return drawFields(rows)
}

/** Those parts that are there. */
export const joined = (between: string, ...parts: readonly string[]): string => parts.filter((part) => part !== '').join(between)

/** One word of a shell command. */
function quote(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** What follows `--`: one argument is a shell script, several are the words of one command. */
export function shellOf(words: readonly string[]): string {
  return words.length === 1 ? (words[0] ?? '') : words.map(quote).join(' ')
}

/** The words of a command: positional ones, and what stands behind `--`, which yargs leaves among the command's own names. @throws usage */
export function wordsOf(
  args: { readonly shell: readonly string[] | undefined; readonly _: readonly (string | number)[] },
  usage: string,
): string[] {
  const words = [...(args.shell ?? []), ...args._.slice(2)].map(String)
  if (words.length === 0) throw new PylonError('usage', `Name a command: pylon runtime ${usage}`)
  return words
}

/** Output and exit code of what ran inside become ours. @returns what came back */
export function printOutcome(args: { json: boolean }, answer: Answer<RuntimeAnswer>): Fields {
  const result = fieldsOf(answer.value.payload)
  process.exitCode = typeof result['exit_code'] === 'number' ? result['exit_code'] & 0xff : 1
  if (args.json) printAnswer(args, answer, () => '')
  else {
    printRaw(process.stdout, textOf(result['stdout']))
    printRaw(process.stderr, textOf(result['stderr']))
  }
  return result
}
