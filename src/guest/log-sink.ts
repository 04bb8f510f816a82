/** Appends to a log file up to a cap, then drops: what runs inside may not fill the disk with words. */
import { createWriteStream, type WriteStream } from 'node:fs'

export class LogSink {
  readonly #stream: WriteStream
  readonly #maxBytes: number
  #bytes = 0

  constructor(path: string, maxBytes: number) {
    this.#maxBytes = maxBytes
    this.#stream = createWriteStream(path, { flags: 'a', mode: 0o644 })
    // A full disk loses log lines, not the run.
    this.#stream.on('error', () => undefined)
  }

  write(chunk: Uint8Array | string): void {
    const data = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
    const room = this.#maxBytes - this.#bytes
    if (room <= 0) return
    this.#bytes += Math.min(data.length, room)
    this.#stream.write(data.length <= room ? data : data.subarray(0, room))
  }

  line(text: string): void {
    this.write(`${text}\n`)
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#stream.once('close', resolve)
      this.#stream.end()
      if (this.#stream.closed) resolve()
    })
  }
}
