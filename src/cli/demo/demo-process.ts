/** How the demo drives Pylon: as anybody would, by running the public command line as a process of its own. */
import { spawn } from 'node:child_process'
import type { z } from 'zod'
import { ERRORS, type ErrorCode, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { childEnv, selfCommand } from '../../daemon/launch/self-command.ts'

const TIMEOUT_MS = 60_000
const MAX_OUTPUT = 4_000_000

export interface Outcome {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs commands in one home, always on its sandbox node. */
export interface Pylon {
  /** What a command prints for people. @throws its own error when it exits above zero */
  text(...args: string[]): Promise<string>
  /** The answer of a command. @throws its own error when it exits above zero */
  json(...args: string[]): Promise<Record<string, unknown>>
  /** The answer as the route's schema reads it. @param exitCodes those that still come with an answer (0) */
  answer<S extends z.ZodType>(schema: S, args: readonly string[], exitCodes?: readonly number[]): Promise<z.output<S>>
}

export function pylonIn(home: string, signal: AbortSignal): Pylon {
  const run = (args: readonly string[]) => runSelf([...args, '--sandbox'], home, signal)
  const json = async (args: readonly string[], exitCodes: readonly number[]) => {
    const done = await run([...args, '--json'])
    const parsed = parseJson(done.out)
    if (!exitCodes.includes(done.code) || typeof parsed !== 'object' || parsed === null) throw errorOf(args, done)
    return parsed as Record<string, unknown>
  }
  return {
    text: async (...args) => {
      const done = await run(args)
      if (done.code !== 0) throw errorOf(args, done)
      return done.out.trimEnd()
    },
    json: (...args) => json(args, [0]),
    answer: async (schema, args, exitCodes = [0]) => {
      const { network: _network, ...resource } = await json(args, exitCodes)
      return schema.parse(resource)
    },
  }
}

function runSelf(args: readonly string[], home: string, signal: AbortSignal): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const self = selfCommand(args)
    const child = spawn(self.command, self.args, {
      env: childEnv(process.env, { PYLON_HOME: home }),
      stdio: ['ignore', 'pipe', 'pipe'],
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    })
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk: Buffer) => {
      if (out.length < MAX_OUTPUT) out += chunk.toString()
    })
    child.stderr.on('data', (chunk: Buffer) => {
      if (err.length < MAX_OUTPUT) err += chunk.toString()
    })
    child.on('error', (error) => {
      const words = `did not end within ${TIMEOUT_MS / 1000} s or could not start (${error.message})`
      reject(signal.aborted ? signal.reason : new PylonError('demo_failed', `${nameOf(args)} ${words}.`))
    })
    child.on('close', (code) => resolve({ code: code ?? 1, out, err }))
  })
}

/** The error object that the command printed on stderr, or its last words. */
function errorOf(args: readonly string[], done: Outcome): PylonError {
  for (const line of done.err.split('\n').toReversed()) {
    const parsed = parseJson(line) as { error?: { code?: unknown; message?: unknown } } | undefined
    const code = parsed?.error?.code
    if (typeof code === 'string' && Object.hasOwn(ERRORS, code)) return new PylonError(code as ErrorCode, String(parsed?.error?.message))
  }
  const words = (done.err || done.out).trim().split('\n').at(-1) ?? ''
  return new PylonError('demo_failed', `${nameOf(args)} exited with ${done.code}: ${words}`)
}

/** `pylon job submit`: enough to know which. */
function nameOf(args: readonly string[]): string {
  return `pylon ${args.slice(0, 2).join(' ')}`
}
