/** What commands print: people's words or the API's JSON on stdout, errors and remarks on stderr. */
import { type PylonError, toPylonError } from '../../base/errors.ts'
import { stringify } from '../../base/json.ts'

/** An argument of any length may stand in an error. */
const MAX_ERROR_CHARS = 1000
/** What would drive a terminal; tabs and ends of lines do not. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: taking them out is the point
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g

/** Prints an answer: with `--json` exactly the body, else what `human` makes of the value. */
export function printAnswer<T>(
  args: { json: boolean },
  answer: { value: T; body: Record<string, unknown>; network: 'sandbox' | 'live' },
  human: (value: T) => string,
): void {
  print(args.json ? json(answer.body, 2) : human(answer.value).trimEnd())
  // Not on standard output: a token or a result goes on through a pipe.
  if (answer.network === 'sandbox' && !args.json) process.stderr.write('(sandbox: play money)\n')
}

/** What a command found out by itself: as JSON, or in words. */
export function printFacts(args: { json: boolean }, facts: Record<string, unknown>, words: string): void {
  print(args.json ? json(facts, 2) : words)
}

/** One or more lines on standard output, safe for a terminal whoever wrote the words in them. */
export function print(text: string): void {
  process.stdout.write(`${plain(text)}\n`)
}

/** What a program wrote: byte for byte into a file or pipe, safe on a terminal. */
export function printRaw(stream: NodeJS.WriteStream, data: string | Buffer): void {
  stream.write(stream.isTTY ? plain(data.toString()) : data)
}

/** JSON that also a terminal can show: what would drive one is written as an escape, which reads back the same. */
export function json(value: unknown, space?: number): string {
  return stringify(value, space).replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** Aborted once nobody reads standard output any more: what goes on until it is stopped then ends. */
export function readerGone(): AbortSignal {
  const gone = new AbortController()
  process.stdout.once('error', () => gone.abort())
  return gone.signal
}

/** A remark for the person, never part of the answer. */
export function warn(text: string): void {
  process.stderr.write(`pylon: ${plain(text)}\n`)
}

/** One line with the code, or the error object with `--json`. */
export function printError(error: unknown, asJson: boolean): void {
  const known = toPylonError(error)
  process.stderr.write(asJson ? `${json(known)}\n` : `pylon: ${oneLine(known.message)} (${known.code})\n`)
}

/** 0 ok, 1 failed, 2 usage, 3 not running, 130 ended by Ctrl-C. */
export function exitCodeOf(error: PylonError): 1 | 2 | 3 | 130 {
  if (error.code === 'cancelled' && error.details['signal'] === 'SIGINT') return 130
  if (error.code === 'not_running') return 3
  return error.code === 'usage' || error.code === 'invalid_request' ? 2 : 1
}

/** What strangers wrote may hold control characters that would drive a terminal: shown as they are named, never run. */
export function plain(text: string): string {
  return text.replaceAll('\r\n', '\n').replace(CONTROL, '\uFFFD')
}

function oneLine(text: string): string {
  const line = plain(text.replace(/\s*\n\s*/g, ' '))
  return line.length <= MAX_ERROR_CHARS ? line : `${line.slice(0, MAX_ERROR_CHARS)}…`
}
