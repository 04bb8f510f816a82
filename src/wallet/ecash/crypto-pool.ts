/** Sends Cashu cryptography to a worker thread; where the bundle of the worker is not there (unbundled tests) it runs here. */
import { existsSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { assetPath } from '../../base/assets.ts'
import { messageOf } from '../../base/errors.ts'
import { type CryptoTask, type CryptoTasks, runCryptoTask } from './crypto.ts'

export interface Crypto {
  /** Rejects with an Error in words when the input is not what it should be. */
  run<T extends CryptoTask>(task: T, input: CryptoTasks[T]['in']): Promise<CryptoTasks[T]['out']>
  close(): Promise<void>
}

interface Waiting {
  resolve(value: unknown): void
  reject(error: Error): void
}

interface Answer {
  readonly id: number
  readonly value?: unknown
  readonly error?: string
}

/** @param workerPath the bundled worker; found beside the program by default. */
export function createCrypto(workerPath = assetPath('crypto-worker.cjs')): Crypto {
  if (!existsSync(workerPath)) return { run: async (task, input) => runCryptoTask(task, input), close: async () => {} }
  const waiting = new Map<number, Waiting>()
  let worker: Worker | undefined
  let lastId = 0

  const failAll = (reason: string) => {
    worker = undefined
    for (const { reject } of waiting.values()) reject(new Error(`the crypto worker ended: ${reason}`))
    waiting.clear()
  }

  const start = (): Worker => {
    const fresh = new Worker(workerPath)
    fresh.unref()
    fresh.on('message', ({ id, value, error }: Answer) => {
      const one = waiting.get(id)
      waiting.delete(id)
      if (error === undefined) one?.resolve(value)
      else one?.reject(new Error(error))
    })
    fresh.on('error', (error) => fresh === worker && failAll(messageOf(error)))
    fresh.on('exit', (code) => fresh === worker && failAll(`exit code ${code}`))
    return fresh
  }

  return {
    run: <T extends CryptoTask>(task: T, input: CryptoTasks[T]['in']) =>
      new Promise<CryptoTasks[T]['out']>((resolve, reject) => {
        worker ??= start()
        const id = ++lastId
        waiting.set(id, { resolve: resolve as (value: unknown) => void, reject })
        worker.postMessage({ id, task, input })
      }),
    async close() {
      const old = worker
      failAll('the wallet was closed')
      await old?.terminate()
    },
  }
}
