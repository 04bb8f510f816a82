/** Commands inside an instance, over WebSockets: input piped, output capped, killed when their time is over. */
import { z } from 'zod'
import { messageOf, PylonError } from '../../base/errors.ts'
import type { WebSocket } from '../../base/service-websocket.ts'
import type { Execution } from '../adapter.ts'
import type { IncusClient } from './client.ts'
import { parse } from './instances.ts'

export interface ExecCall {
  readonly command: readonly string[]
  readonly stdin?: string
  readonly env?: Readonly<Record<string, string>>
  /** Its group is of the same number; default root. */
  readonly uid?: number
  readonly timeoutMs: number
  /** Of each of stdout and stderr; what comes after is dropped and `truncated` set. */
  readonly maxBytes: number
  readonly signal?: AbortSignal
}

/** What a killed command gets to end its streams. */
const KILL_GRACE_MS = 5_000
const execMetadata = z.looseObject({ fds: z.record(z.string(), z.string()) })

/**
 * Output is never recorded by the daemon: a guest that floods would fill the host's log folder.
 * A command that is not there exits with 127.
 * @throws timeout; cancelled; the incus_* codes
 */
export async function execInGuest(incus: IncusClient, instance: string, call: ExecCall): Promise<Execution> {
  const path = `/1.0/instances/${encodeURIComponent(instance)}/exec`
  const what = `POST ${path}`
  const { operation } = await incus.call('POST', path, {
    body: {
      command: call.command,
      environment: call.env ?? {},
      'wait-for-websocket': true,
      'record-output': false,
      interactive: false,
      user: call.uid ?? 0,
      group: call.uid ?? 0,
      cwd: '/',
    },
    signal: call.signal,
  })
  if (operation === undefined) throw new PylonError('incus_failed', `${what}: Incus began no operation.`)
  const { fds } = parse(execMetadata, operation.metadata, what)
  const open = (fd: string) => incus.webSocket(`/1.0/operations/${operation.id}/websocket`, { secret: fds[fd] ?? '' })
  // All of them at once: Incus waits 5 s for the last one and then gives up.
  const control = open('control')
  const stdin = open('0')
  const stdout = capture(open('1'), call.maxBytes)
  const stderr = capture(open('2'), call.maxBytes)
  for (const socket of [control, stdin]) socket.on('error', () => {})
  stdin.on('open', () => {
    if (call.stdin !== undefined) stdin.send(Buffer.from(call.stdin))
    // Closing it is the end of input.
    stdin.close()
  })

  let ended: 'timeout' | 'cancelled' | undefined
  const kill = (why: 'timeout' | 'cancelled') => {
    ended ??= why
    if (control.readyState === control.OPEN) control.send(JSON.stringify({ command: 'signal', signal: 9 }))
  }
  // Given up before it could be said: it is said as soon as it can be.
  control.on('open', () => (ended === undefined ? undefined : kill(ended)))
  const cancelTimer = incus.scope.after('kill', call.timeoutMs, () => kill('timeout'))
  const onAbort = () => kill('cancelled')
  call.signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const exitCode = await exitOf(incus, operation.id, what, call.timeoutMs + KILL_GRACE_MS)
    // A child that was left behind may hold the streams open for ever.
    await incus.scope.patience(KILL_GRACE_MS, Promise.all([stdout.end, stderr.end]))
    if (ended !== undefined) throw new PylonError(ended, endedWords(ended, call))
    return { exitCode, stdout: stdout.text(), stderr: stderr.text(), truncated: stdout.truncated() || stderr.truncated() }
  } catch (error) {
    throw ended === undefined ? error : new PylonError(ended, endedWords(ended, call), { cause: error })
  } finally {
    cancelTimer()
    call.signal?.removeEventListener('abort', onAbort)
    for (const socket of [control, stdin, stdout.socket, stderr.socket]) socket.terminate()
  }
}

/** Incus makes errors of the two exit codes by which a shell says that it could not run something. */
async function exitOf(incus: IncusClient, id: string, what: string, waitMs: number): Promise<number> {
  try {
    const exitCode = (await incus.wait(id, what, { waitMs })).metadata?.['return']
    return typeof exitCode === 'number' ? exitCode : -1
  } catch (error) {
    const words = messageOf(error)
    if (/command not found/i.test(words)) return 127
    if (/command not executable/i.test(words)) return 126
    throw error
  }
}

function endedWords(why: 'timeout' | 'cancelled', call: ExecCall): string {
  return why === 'timeout' ? `The command did not end within ${call.timeoutMs} ms and was killed.` : 'The command was given up and killed.'
}

interface Capture {
  readonly socket: WebSocket
  readonly end: Promise<void>
  text(): string
  truncated(): boolean
}

/** Output comes as binary frames; an empty text frame, or the end of the socket, is its end. */
function capture(socket: WebSocket, maxBytes: number): Capture {
  const chunks: Buffer[] = []
  let size = 0
  let cut = false
  const end = new Promise<void>((resolve) => {
    socket.on('message', (data, isBinary) => {
      if (!isBinary) return resolve()
      const bytes = Buffer.isBuffer(data) ? data : Buffer.concat(Array.isArray(data) ? data : [Buffer.from(data)])
      const room = maxBytes - size
      if (bytes.length > room) cut = true
      if (room > 0) chunks.push(bytes.subarray(0, room))
      size += Math.min(bytes.length, Math.max(0, room))
    })
    socket.on('close', () => resolve())
    socket.on('error', () => resolve())
  })
  return { socket, end, text: () => Buffer.concat(chunks).toString('utf8'), truncated: () => cut }
}
