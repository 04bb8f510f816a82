/** The worker thread that does the Cashu cryptography: takes a task, answers with its outcome. */
import { parentPort } from 'node:worker_threads'
import { messageOf } from '../../base/errors.ts'
import { type CryptoTask, type CryptoTasks, runCryptoTask } from './crypto.ts'

interface TaskMessage {
  readonly id: number
  readonly task: CryptoTask
  readonly input: CryptoTasks[CryptoTask]['in']
}

parentPort?.on('message', ({ id, task, input }: TaskMessage) => {
  try {
    parentPort?.postMessage({ id, value: runCryptoTask(task, input) })
  } catch (error) {
    parentPort?.postMessage({ id, error: messageOf(error) })
  }
})
