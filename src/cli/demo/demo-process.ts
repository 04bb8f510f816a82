/** How the demo drives Pylon: as anybody would, by running the public command line as a process of its own. */
import { setTimeout as delay } from 'node:timers/promises'
import type { z } from 'zod'
import { ERRORS, type ErrorCode, messageOf, PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { runProgram } from '../../base/processes.ts'
import { childEnv, selfCommand } from '../../daemon/launch/self-command.ts'

const TIMEOUT_MS = 60_000
const LOOK_EVERY_MS = 300
const MAX_OUTPUT = 4_000_000

interface Outcome {
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

async function runSelf(args: readonly string[], home: string, signal: AbortSignal): Promise<Outcome> {
  const { command, args: own } = selfCommand(args)
  const env = childEnv(process.env, { PYLON_HOME: home })
  try {
    const end = await runProgram({ argv: [command, ...own], env, signal, timeoutMs: TIMEOUT_MS, maxBytes: MAX_OUTPUT })
    return { code: end.exitCode, out: end.stdout, err: end.stderr }
  } catch (error) {
    signal.throwIfAborted()
    const words = `did not end within ${TIMEOUT_MS / 1000} s or could not start (${messageOf(error)})`
    throw new PylonError('demo_failed', `${nameOf(args)} ${words}.`)
  }
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

/** The first answer that is not undefined. @throws demo_failed after `timeoutMs` */
export async function waitFor<T>(what: string, timeoutMs: number, probe: () => Promise<T | undefined>): Promise<T> {
  const until = Date.now() + timeoutMs
  for (;;) {
    const found = await probe()
    if (found !== undefined) return found
    if (Date.now() >= until) throw new PylonError('demo_failed', `Waited ${timeoutMs / 1000} s for ${what}; look at: pylon logs --sandbox`)
    await delay(LOOK_EVERY_MS)
  }
}
