/** Appends to a log file up to a cap, then drops: what runs inside may not fill the disk with words. */
import { closeSync, constants, createWriteStream, fstatSync, openSync, type WriteStream } from 'node:fs'

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants

export class LogSink {
  /** Undefined where no file can be written: the words are dropped. */
  readonly #stream: WriteStream | undefined
  readonly #maxBytes: number
  #bytes = 0

  constructor(path: string, maxBytes: number) {
    this.#maxBytes = maxBytes
    const fd = openForAppend(path)
    this.#stream = fd === undefined ? undefined : createWriteStream(path, { fd })
    // A full disk loses log lines, not the run.
    this.#stream?.on('error', () => undefined)
  }

  write(chunk: Uint8Array | string): void {
    const data = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
    const room = this.#maxBytes - this.#bytes
    if (room <= 0 || this.#stream === undefined) return
    this.#bytes += Math.min(data.length, room)
    this.#stream.write(data.length <= room ? data : data.subarray(0, room))
  }

  line(text: string): void {
    this.write(`${text}\n`)
  }

  /** Resolves when all of it is in the file; may be called again. */
  async close(): Promise<void> {
    const stream = this.#stream
    if (stream === undefined || stream.closed) return
    await new Promise<void>((resolve) => {
      stream.once('close', resolve)
      stream.end()
      if (stream.closed) resolve()
    })
  }
}

/** What runs here may have put a pipe or a link in its place: neither is waited for nor followed. @returns undefined where no file can be written */
export function openForAppend(path: string): number | undefined {
  try {
    const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o644)
    if (fstatSync(fd).isFile()) return fd
    closeSync(fd)
    return undefined
  } catch {
    return undefined
  }
}
