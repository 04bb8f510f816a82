/** Reads the log back: its last lines, and then those that come, across rotation and reopening. */
import { open, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { parseJson } from '../../base/json.ts'

const BLOCK_BYTES = 64 * 1024
const POLL_MS = 200

export type LogLine = Record<string, unknown>

/** @param lines how many of the last; with `follow`, new ones until the signal. What is no JSON (a crash's words) comes as `msg`. */
export async function* readLog(path: string, lines: number, follow: boolean, signal: AbortSignal): AsyncGenerator<LogLine> {
  const { texts, end } = await lastLines(path, lines)
  for (const text of texts) yield parseLine(text)
  if (!follow) return
  let offset = end
  let inode: number | undefined
  let rest = ''
  while (!signal.aborted) {
    // Just being rotated: it is looked at again.
    const now = await stat(path).catch(() => undefined)
    const size = now?.size ?? 0
    // Rotated or truncated: a new file begins.
    if (size < offset || (now !== undefined && inode !== undefined && now.ino !== inode)) offset = 0
    inode = now?.ino ?? inode
    if (size === offset) {
      // The signal ends the loop.
      await delay(POLL_MS, undefined, { signal }).catch(() => undefined)
      continue
    }
    const chunk = await readRange(path, offset, Math.min(size, offset + BLOCK_BYTES))
    offset += chunk.length
    const parts = (rest + chunk.toString('utf8')).split('\n')
    rest = parts.pop() ?? ''
    for (const text of parts) if (text !== '') yield parseLine(text)
  }
}

async function lastLines(path: string, count: number): Promise<{ texts: string[]; end: number }> {
  // No log yet is an empty one.
  const size = (await stat(path).catch(() => undefined))?.size ?? 0
  let start = size
  let bytes = Buffer.alloc(0)
  // One line more than asked for: the first one read may be half.
  while (start > 0 && countOf(bytes, 10) <= count) {
    const from = Math.max(0, start - BLOCK_BYTES)
    bytes = Buffer.concat([await readRange(path, from, start), bytes])
    start = from
  }
  const texts = bytes
    .toString('utf8')
    .split('\n')
    .filter((text) => text !== '')
  return { texts: count === 0 ? [] : texts.slice(-count), end: size }
}

function countOf(bytes: Buffer, byte: number): number {
  let count = 0
  for (let at = bytes.indexOf(byte); at !== -1; at = bytes.indexOf(byte, at + 1)) count += 1
  return count
}

async function readRange(path: string, from: number, to: number): Promise<Buffer> {
  const file = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(to - from), 0, to - from, from)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

function parseLine(text: string): LogLine {
  const value = parseJson(text)
  return typeof value === 'object' && value !== null ? (value as LogLine) : { msg: text }
}
