/** What a command of the CLI is made of: its yargs module, the node it talks to, and the one call it makes. */
import { existsSync } from 'node:fs'
import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs'
import { howToStart } from '../base/advice.ts'
import { isPylonError, PylonError } from '../base/errors.ts'
import { defaultHome, type Home, homeAt, isSocketPathUsable } from '../base/paths.ts'
import { VERSION } from '../base/version.ts'
import {
  type Answer,
  type CallOptions,
  callRoute,
  type Input,
  type Network,
  type Output,
  type Route,
  streamRoute,
} from '../control/client.ts'
import { printAnswer, warn } from './terminal/output.ts'

/** Options that every command has. */
export interface GlobalOptions {
  readonly json: boolean
  readonly sandbox: boolean
}

/** What a command is given whose options such a function adds. */
export type ArgsOf<F extends (yargs: Argv<GlobalOptions>) => unknown> =
  ReturnType<F> extends Argv<infer A> ? ArgumentsCamelCase<GlobalOptions & A> : never

interface CommandSpec<A> {
  /** yargs syntax: `fund <amount>`, `show [name]`; an array adds aliases. */
  readonly command: string | readonly string[]
  readonly describe: string
  readonly builder?: (yargs: Argv<GlobalOptions>) => Argv<GlobalOptions & A>
  /** Resolves when done; the exit code is 0 unless it throws or `process.exitCode` was set. */
  readonly handler: (args: ArgumentsCamelCase<GlobalOptions & A>) => unknown
}

/** One command; its options are typed by the builder. */
export function defineCommand<A>(spec: CommandSpec<A>): CommandModule<GlobalOptions, GlobalOptions & A> {
  return {
    command: spec.command,
    describe: spec.describe,
    builder: (yargs) => (spec.builder === undefined ? (yargs as Argv<GlobalOptions & A>) : spec.builder(yargs)),
    handler: async (args) => void (await spec.handler(args)),
  }
}

/** A command of commands: `pylon wallet balance`. */
export function defineGroup(
  command: string | readonly string[],
  describe: string,
  // biome-ignore lint/suspicious/noExplicitAny: yargs types a list of commands with different options so.
  commands: readonly CommandModule<GlobalOptions, any>[],
  parent?: string,
): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command,
    describe,
    builder: (yargs) => {
      for (const one of commands) yargs.command(one)
      const words = ['pylon', parent, [command].flat()[0]].filter((word) => word !== undefined).join(' ')
      return yargs.demandCommand(1, `Name a command: ${words} --help lists them.`)
    },
    handler: () => undefined,
  }
}

/** A home, and whether it is the live one or its sandbox. */
export interface NodeHome {
  readonly home: Home
  readonly network: Network
}

/** The homes a client command may mean, in the order they are tried: live, then its sandbox; `--sandbox` insists. */
export function homesOf(args: { sandbox: boolean }): NodeHome[] {
  const live = defaultHome(process.env)
  const sandbox: NodeHome = { home: homeAt(live.sandbox), network: 'sandbox' }
  // Below a long path there is room for the live node alone.
  const both = isSocketPathUsable(sandbox.home.socket) ? [sandbox] : []
  return args.sandbox ? [sandbox] : [{ home: live, network: 'live' }, ...both]
}

/** The home of a command that starts or changes a node: the live one unless `--sandbox`. */
export function homeOf(args: { sandbox: boolean }): NodeHome {
  return homesOf(args)[0] as NodeHome
}

/**
 * Calls the node that runs (live first). Without one, a route marked `offline` is answered from the database, read-only.
 * @throws not_running, and what the route throws.
 */
export async function callNode<R extends Route>(
  args: { sandbox: boolean },
  route: R,
  input: Input<R>,
  options: CallOptions = {},
): Promise<Answer<Output<R>>> {
  for (const { home } of homesOf(args)) {
    try {
      const answer = await callRoute(home.socket, route, input, options)
      warnOfVersion(answer.nodeVersion)
      return answer
    } catch (error) {
      if (!isPylonError(error, 'not_running')) throw error
    }
  }
  if (!route.offline) throw notRunning(args)
  const { callOffline } = await import('../daemon/offline/call.ts')
  return await callOffline(stoppedHome(args), route, input)
}

/** The one call of most commands, its answer printed. @returns what was answered @throws as `callNode` */
export async function ask<R extends Route>(
  args: GlobalOptions,
  route: R,
  input: Input<R>,
  human: (value: Output<R>) => string,
  options: CallOptions = {},
): Promise<Output<R>> {
  const answer = await callNode(args, route, input, options)
  printAnswer(args, answer, human)
  return answer.value
}

/** The lines of a streaming route of the node that runs. @throws not_running */
export async function* streamNode<R extends Route>(
  args: { sandbox: boolean },
  route: R,
  input: Input<R>,
  options: CallOptions = {},
): AsyncGenerator<Output<R>> {
  for (const { home } of homesOf(args)) {
    try {
      yield* streamRoute(home.socket, route, input, options)
      return
    } catch (error) {
      if (!isPylonError(error, 'not_running')) throw error
    }
  }
  throw notRunning(args)
}

/** Of the homes a command may mean, the first that ever held a node. */
export function stoppedHome(args: { sandbox: boolean }): NodeHome {
  const homes = homesOf(args)
  return homes.find(({ home }) => existsSync(home.database)) ?? homeOf(args)
}

export function notRunning(args: { sandbox: boolean }): PylonError {
  return new PylonError('not_running', `Pylon is not running; start it with: ${howToStart(stoppedHome(args).network)}`)
}

let isWarned = false
function warnOfVersion(nodeVersion: string): void {
  if (isWarned || nodeVersion === VERSION || nodeVersion === '') return
  isWarned = true
  warn(`the node runs version ${nodeVersion} and this is ${VERSION}; to bring it up: pylon restart`)
}
