/** What commands print: people's words or the API's JSON on stdout, errors and remarks on stderr. */
import { type PylonError, toPylonError } from '../base/errors.ts'
import { stringify } from '../base/json.ts'

/** Prints an answer: with `--json` exactly the body, else what `human` makes of the value. */
export function printAnswer<T>(
  args: { json: boolean },
  answer: { value: T; body: Record<string, unknown>; network: 'sandbox' | 'live' },
  human: (value: T) => string,
): void {
  const text = args.json ? stringify(answer.body, 2) : human(answer.value).trimEnd()
  print(answer.network === 'sandbox' && !args.json ? `${text}\n(sandbox: play money)` : text)
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** A remark for the person, never part of the answer. */
export function warn(text: string): void {
  process.stderr.write(`pylon: ${text}\n`)
}

/** One line with the code, or the error object with `--json`. */
export function printError(error: unknown, asJson: boolean): void {
  const known = toPylonError(error)
  process.stderr.write(asJson ? `${stringify(known)}\n` : `pylon: ${oneLine(known.message)} (${known.code})\n`)
}

/** 0 ok, 1 failed, 2 usage, 3 not running. */
export function exitCodeOf(error: PylonError): 1 | 2 | 3 {
  if (error.code === 'not_running') return 3
  return error.code === 'usage' || error.code === 'invalid_request' ? 2 : 1
}

/** Columns aligned by their widest cell; the header is left out when empty. */
export function table(rows: readonly (readonly string[])[], header: readonly string[] = []): string {
  const all = header.length > 0 ? [header, ...rows] : rows
  const widths: number[] = []
  for (const row of all)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length)
    })
  return all
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** What strangers wrote may hold control characters that would drive a terminal: shown as they are named, never run. */
export function plain(text: string): string {
  return [...text].map((char) => (isControl(char.codePointAt(0) ?? 0) ? '\uFFFD' : char)).join('')
}

function isControl(code: number): boolean {
  return (
    (code < 32 && code !== 10 && code !== 9) ||
    (code >= 127 && code < 160) ||
    (code >= 0x202a && code <= 0x202e) ||
    (code >= 0x2066 && code <= 0x2069)
  )
}

function oneLine(text: string): string {
  return plain(text.replace(/\s*\n\s*/g, ' '))
}
