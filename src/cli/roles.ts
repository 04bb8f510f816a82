/** Roles of this program that are not the CLI; main gives them, so that commands can name them without importing them. */
import type { DaemonOptions } from '../daemon/launch/run-options.ts'

export interface SandboxRoleOptions {
  readonly dir: string
  readonly relayPort?: number
  readonly mintPort?: number
  readonly lnurlPort?: number
}

/** Each runs until it is told to end and gives the exit code. */
export interface Roles {
  daemon(options: DaemonOptions): Promise<number>
  sandbox(options: SandboxRoleOptions): Promise<number>
}
