/** The daemon's log: one file, appended to synchronously, rotated when large, reopened on SIGHUP. */
import { closeSync, fstatSync, openSync, renameSync, statSync, writeSync } from 'node:fs'

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
  #bytes: number

  /** @param echo write each line to stdout too (foreground). */
  constructor(path: string, echo: boolean) {
    this.#path = path
    this.#echo = echo
    this.#fd = openSync(path, 'a', 0o600)
    this.#bytes = fstatSync(this.#fd).size
  }

  write(line: string): void {
    try {
      this.#bytes += writeSync(this.#fd, line)
      if (this.#echo) process.stdout.write(line)
      if (this.#bytes > ROTATE_BYTES) this.#rotate()
    } catch {
      // A full disk must not end the node over a log line; the store reports it as its own state.
    }
  }

  reopen(): void {
    const fd = openSync(this.#path, 'a', 0o600)
    closeSync(this.#fd)
    this.#fd = fd
    this.#bytes = fstatSync(fd).size
  }

  /** Strangers have a part in how much is logged. */
  #rotate(): void {
    // Where it can't be moved it is tried again only after as much again.
    this.#bytes = 0
    rotateLog(this.#path)
    this.reopen()
  }
}
