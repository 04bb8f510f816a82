/** Roles of this program that are not the CLI; main gives them, so that commands can name them without importing them. */
import type { DaemonOptions } from '../daemon/launch/run-options.ts'

export interface SandboxRoleOptions {
  readonly dir: string
  readonly relayPort?: number
  readonly mintPort?: number
  readonly lnurlPort?: number
}

export interface McpRoleOptions {
  /** Sockets of the node, in the order in which they are tried. */
  readonly sockets: readonly string[]
  readonly howToStart: string
  /** The agent that is acted as; the owner when absent. */
  readonly agent?: string
  readonly limits: { readonly perCallSats: number; readonly perSessionSats: number }
}

/** Each runs until it is told to end and gives the exit code. */
export interface Roles {
  daemon(options: DaemonOptions): Promise<number>
  sandbox(options: SandboxRoleOptions): Promise<number>
  mcp(options: McpRoleOptions): Promise<number>
}
