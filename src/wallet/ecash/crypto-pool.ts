/** Sends Cashu cryptography to a worker thread; where the bundle of the worker is not there (unbundled tests) it runs here. */
import { existsSync } from 'node:fs'
import { assetPath } from '../../base/assets.ts'
import { TaskWorker } from '../../base/task-worker.ts'
import { type CryptoTask, type CryptoTasks, runCryptoTask } from './crypto.ts'

export interface Crypto {
  /** Rejects with an Error in words when the input is not what it should be. */
  run<T extends CryptoTask>(task: T, input: CryptoTasks[T]['in']): Promise<CryptoTasks[T]['out']>
  close(): Promise<void>
}

/** @param workerPath the bundled worker; found beside the program by default. */
export function createCrypto(workerPath = assetPath('crypto-worker.cjs')): Crypto {
  if (!existsSync(workerPath)) return { run: async (task, input) => runCryptoTask(task, input), close: async () => {} }
  const worker = new TaskWorker<CryptoTasks>(workerPath, 'crypto')
  return { run: (task, input) => worker.run(task, input), close: () => worker.close('the wallet was closed') }
}
