/** Work that would hold up the loop, done by a worker thread: tasks by name, each answered once, or rejected with the worker's end. */
import { parentPort, Worker, type WorkerOptions } from 'node:worker_threads'
import { messageOf } from './errors.ts'

/** What a worker does: for each task what it is given and what it gives. */
export type TaskTypes<T> = { readonly [K in keyof T]: { readonly in: unknown; readonly out: unknown } }

interface Question {
  readonly id: number
  readonly task: string
  readonly input: unknown
}

interface Answer {
  readonly id: number
  readonly value?: unknown
  readonly error?: string
}

interface Waiting {
  resolve(value: unknown): void
  reject(error: Error): void
}

export class TaskWorker<T extends TaskTypes<T>> {
  readonly #path: string
  readonly #name: string
  readonly #options: WorkerOptions
  readonly #waiting = new Map<number, Waiting>()
  #worker: Worker | undefined
  #lastId = 0

  /** It is started by its first task. @param path its bundle @param name for the words of an error */
  constructor(path: string, name: string, options: WorkerOptions = {}) {
    this.#path = path
    this.#name = name
    this.#options = options
  }

  /** Rejects with an Error in words: what the task threw, or that the worker ended. */
  run<K extends keyof T & string>(task: K, input: T[K]['in']): Promise<T[K]['out']> {
    return new Promise<T[K]['out']>((resolve, reject) => {
      this.#worker ??= this.#start()
      const id = ++this.#lastId
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject })
      this.#worker.postMessage({ id, task, input } satisfies Question)
    })
  }

  async close(why: string): Promise<void> {
    const old = this.#worker
    this.#failAll(why)
    await old?.terminate()
  }

  #start(): Worker {
    const fresh = new Worker(this.#path, this.#options)
    fresh.unref()
    fresh.on('message', ({ id, value, error }: Answer) => {
      const one = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error === undefined) one?.resolve(value)
      else one?.reject(new Error(error))
    })
    fresh.on('error', (error) => fresh === this.#worker && this.#failAll(messageOf(error)))
    fresh.on('exit', (code) => fresh === this.#worker && this.#failAll(`exit code ${code}`))
    return fresh
  }

  #failAll(reason: string): void {
    this.#worker = undefined
    for (const { reject } of this.#waiting.values()) reject(new Error(`the ${this.#name} worker ended: ${reason}`))
    this.#waiting.clear()
  }
}

/** The other side, inside the worker: does each task and answers. */
export function serveTasks(run: (task: string, input: unknown) => unknown): void {
  parentPort?.on('message', async ({ id, task, input }: Question) => {
    try {
      parentPort?.postMessage({ id, value: await run(task, input) } satisfies Answer)
    } catch (error) {
      parentPort?.postMessage({ id, error: messageOf(error) } satisfies Answer)
    }
  })
}
