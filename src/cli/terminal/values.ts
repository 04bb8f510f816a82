/** Values as people type them: whole numbers, repeated options, text from an argument, a file or standard input. */
import { readFileSync, readSync } from 'node:fs'
import { createInterface, type Interface } from 'node:readline'
import { messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { lengthMs } from '../../base/lengths.ts'

const MAX_INPUT_BYTES = 4_000_000
const STDIN_NAP_MS = 5

/** Thousands may be set apart, as we print them; 1,5 is no 15. */
const WHOLE = /^(?:\d{1,16}|[1-9]\d{0,2}(?:[,_]\d{3}){1,5})$/

/** @throws usage naming the value when it is no whole number from `min` to `max`. */
export function wholeNumber(text: string, name: string, min = 1, max = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text.replaceAll(/[_,]/g, ''))
  if (!WHOLE.test(text) || value < min || value > max) {
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`
    throw new PylonError('usage', `${name} must be a whole number ${range}, not ${JSON.stringify(text)}.`)
  }
  return value
}

export function wholeNumberIf(text: string | undefined, name: string, min = 1, max?: number): number | undefined {
  return text === undefined ? undefined : wholeNumber(one(text, name), name, min, max)
}

/** An option that may be given once. yargs gives a list when it came more often. @throws usage */
export function one(value: string | readonly string[], name: string): string {
  if (typeof value === 'string') return value
  throw new PylonError('usage', `${name} is given more than once.`)
}

/** When a length from now (`30d`, `12h`, `45m`) is over, in RFC 3339. @throws usage */
export function afterLength(text: string | readonly string[] | undefined, name: string): string | undefined {
  if (text === undefined) return undefined
  const ms = lengthMs(one(text, name))
  if (ms === undefined) throw new PylonError('usage', `${name} takes a length as 30d, 12h or 45m.`)
  return new Date(Date.now() + ms).toISOString()
}

/** A path, which is never empty: that would mean the folder one happens to be in. @throws usage */
export function pathOf(text: string | readonly string[], name: string): string {
  const path = one(text, name)
  if (path === '') throw new PylonError('usage', `${name} needs a path.`)
  return path
}

/** An option that may be repeated. */
export function many(value: string | readonly string[] | undefined): string[] {
  return value === undefined ? [] : typeof value === 'string' ? [value] : [...value]
}

/** What was given of an option that may be repeated; undefined where nothing was. */
export function manyIf(value: string | readonly string[] | undefined): string[] | undefined {
  return value === undefined ? undefined : many(value)
}

/** The same where one text may name several, set apart by commas. */
export function namesIf(value: string | readonly string[] | undefined): string[] | undefined {
  return manyIf(value)
    ?.flatMap((text) => text.split(',').map((name) => name.trim()))
    .filter((name) => name !== '')
}

/** Those that are given; undefined where none is. */
export function anyGiven<T extends object>(fields: T) {
  const some = given(fields)
  return Object.keys(some).length === 0 ? undefined : some
}

/** `--env NAME=VALUE`, where a value may be read from a file. @throws usage */
export function envOf(pairs: string | readonly string[] | undefined): Record<string, string> | undefined {
  const named = manyIf(pairs)?.map((pair) => nameAndValue(pair, '--env'))
  return named && Object.fromEntries(named.map(([name, value]) => [name, textFrom(value).replace(/\n$/, '')]))
}

/** `name=value`. @throws usage */
export function nameAndValue(text: string, option: string): [string, string] {
  const at = text.indexOf('=')
  if (at < 1) throw new PylonError('usage', `${option} takes name=value, not ${JSON.stringify(text)}.`)
  return [text.slice(0, at), text.slice(at + 1)]
}

/** What `-` on the command line becomes before it is parsed: yargs loses a bare `-` among positionals. */
export const STDIN = '@-'

/** `TEXT`, `@FILE` or `-` for standard input. @throws usage */
export function textFrom(value: string): string {
  if (value === STDIN) return readStdin()
  return value.startsWith('@') ? readTextFile(value.slice(1)) : value
}

/** A secret: from standard input with `-`, so that it is in no argv; as an argument only where it must. */
export function secretFrom(value: string): string {
  return (value === STDIN ? readStdin() : value).trim()
}

export function readTextFile(path: string): string {
  try {
    return textOf(limited(readFileSync(path), path), path)
  } catch (error) {
    throw error instanceof PylonError ? error : new PylonError('usage', `The file ${path} cannot be read: ${messageOf(error)}`)
  }
}

export function readStdin(): string {
  if (process.stdin.isTTY) process.stderr.write('pylon: reading from the terminal; end with Ctrl-D\n')
  return textOf(limited(readToEnd(0), 'standard input'), 'standard input')
}

/** A pipe that its writer left non-blocking answers EAGAIN while it is empty: then it is waited for. */
function readToEnd(fd: number): Buffer {
  const chunks: Buffer[] = []
  let total = 0
  const nap = new Int32Array(new SharedArrayBuffer(4))
  while (total <= MAX_INPUT_BYTES) {
    const chunk = Buffer.alloc(65_536)
    try {
      const length = readSync(fd, chunk)
      if (length === 0) break
      chunks.push(chunk.subarray(0, length))
      total += length
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EOF') break
      if (code !== 'EAGAIN') throw error
      Atomics.wait(nap, 0, 0, STDIN_NAP_MS)
    }
  }
  return Buffer.concat(chunks)
}

function limited(bytes: Buffer, name: string): Buffer {
  if (bytes.length > MAX_INPUT_BYTES) {
    throw new PylonError('usage', `What came from ${name} is over ${MAX_INPUT_BYTES} bytes.`)
  }
  return bytes
}

/** Bytes that are no text are refused: what they would be made into is not what was meant. @throws usage */
export function textOf(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    // The only error that it has.
    throw new PylonError('usage', `What came from ${name} is no UTF-8 text.`)
  }
}

/** The lines of a stream as bytes, a character each (latin1), for `textOf`. */
export function byteLines(input: NodeJS.ReadableStream): Interface {
  input.setEncoding('latin1')
  return createInterface({ input })
}
