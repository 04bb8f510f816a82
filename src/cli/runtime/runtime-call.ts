/** What the commands of `pylon runtime` share: which node is meant, the call with its progress on stderr, and how a runtime is drawn. */
import { randomUUID } from 'node:crypto'
import type { Argv } from 'yargs'
import { isPylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Answer, Output } from '../../control/client.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { callNode } from '../command.ts'
import { idempotencyOption, spendingCall } from '../spending.ts'
import { plain } from '../terminal/output.ts'
import { drawFields } from '../terminal/table.ts'
import { one, wholeNumberIf } from '../terminal/values.ts'
import { interruptible } from '../terminal/waiting.ts'

export type RuntimeAnswer = Output<typeof runtimesRoutes.askRuntime>
export type Paid = Output<typeof runtimesRoutes.commandRuntime>
export type Fields = Record<string, unknown>

const STATUS_WAIT_S = 20
/** Beyond what the command may take, so that the node's own answer about a timeout arrives. */
const GRACE_MS = 600_000

export const PROVIDERS = ['local', 'incus', 'microvm', 'fly', 'workers'] as const
export const PROTOCOLS = ['acp', 'pi'] as const

export const idOf = { type: 'string', demandOption: true, describe: 'Runtime id' } as const

export interface Target {
  readonly sandbox: boolean
  readonly json: boolean
  readonly server: string | undefined
  readonly local: boolean
}

/** Which node is commanded. */
export function withTarget<T>(yargs: Argv<T>) {
  return yargs
    .option('server', { type: 'string', nargs: 1, describe: 'npub of the node whose machines are meant (this node by default)' })
    .option('local', { type: 'boolean', default: false, describe: 'Straight to this node, without a relay' })
}

/** For commands that change something. */
export function withCall<T>(yargs: Argv<T>) {
  return withTarget(yargs)
    .option('timeout', { type: 'string', nargs: 1, describe: 'Seconds to wait for the answer' })
    .option('idempotency-key', idempotencyOption)
}

/** For commands that may cost. */
export function withPrice<T>(yargs: Argv<T>) {
  return withCall(yargs)
    .option('max-sats', { type: 'string', nargs: 1, describe: 'The most that the lease may cost, with fees (100)' })
    .option('pay-with', {
      choices: ['invoice', 'token'] as const,
      default: 'invoice' as const,
      describe: 'Lightning, or a locked Cashu token',
    })
}

export interface CallArgs extends Target {
  readonly timeout: string | undefined
  readonly idempotencyKey: string | undefined
  readonly maxSats?: string | undefined
  readonly payWith?: 'invoice' | 'token'
}

/** Sends a command that changes something; its statuses go to stderr as they come. */
export async function runtimeCall(args: CallArgs, command: Fields & { command: string }): Promise<Answer<Paid>> {
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

/** Sends a command that only looks. */
export async function runtimeQuery(args: Target, command: Fields & { command: string }): Promise<Answer<RuntimeAnswer>> {
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

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** One runtime for people. */
export function drawRuntime(runtime: Fields): string {
  const metadata = fieldsOf(runtime['metadata'])
  const lease = fieldsOf(metadata['lease'])
  const rows: [string, string][] = [
    ['Runtime', textOf(runtime['runtime_id'])],
    ['Provider', [textOf(runtime['provider']), textOf(runtime['region'])].filter((part) => part !== '').join(', ')],
    ['Class', textOf(runtime['runtime_class']) || '-'],
    ['Phase', textOf(runtime['lifecycle_phase'])],
  ]
  const state = textOf(metadata['state'])
  if (state !== '') rows.push(['State', [state, textOf(metadata['state_reason'])].filter((part) => part !== '').join(': ')])
  const protocols = runtime['protocol_compatibility']
  if (Array.isArray(protocols) && protocols.length > 0) rows.push(['Protocols', protocols.map(textOf).join(', ')])
  if (textOf(lease['state']) !== '')
    rows.push(['Lease', [textOf(lease['state']), textOf(lease['ends_at'])].filter((part) => part !== '').join(', until ')])
  return drawFields(rows)
}

/** One word of a shell command. */
function quote(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** What follows `--`: one argument is a shell script, several are the words of one command. */
export function shellOf(words: readonly string[]): string {
  return words.length === 1 ? (words[0] ?? '') : words.map(quote).join(' ')
}

/** The words of a command: positional ones, and what stands behind `--`, which yargs leaves among the command's own names. */
export function wordsOf(args: { readonly shell: readonly string[] | undefined; readonly _: readonly (string | number)[] }): string[] {
  return [...(args.shell ?? []), ...args._.slice(2)].map(String)
}
