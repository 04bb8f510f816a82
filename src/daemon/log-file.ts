/** The daemon's log: one file, appended to synchronously, rotated at start, reopened on SIGHUP. */
import { closeSync, openSync, renameSync, statSync, writeSync } from 'node:fs'

const ROTATE_BYTES = 10 * 1024 * 1024

/** Moves a log over 10 MB to `.1`, in place of the one that was there. */
export function rotateLog(path: string): void {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0
  if (size > ROTATE_BYTES) renameSync(path, `${path}.1`)
}

export class LogFile {
  readonly #path: string
  readonly #echo: boolean
  #fd: number

  /** @param echo write each line to stdout too (foreground). */
  constructor(path: string, echo: boolean) {
    this.#path = path
    this.#echo = echo
    this.#fd = openSync(path, 'a', 0o600)
  }

  write(line: string): void {
    try {
      writeSync(this.#fd, line)
      if (this.#echo) process.stdout.write(line)
    } catch {
      // A full disk must not end the node over a log line; the store reports it as its own state.
    }
  }

  reopen(): void {
    const fd = openSync(this.#path, 'a', 0o600)
    closeSync(this.#fd)
    this.#fd = fd
  }
}
