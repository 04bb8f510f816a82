/** The worker thread that does the Cashu cryptography. */
import { serveTasks } from '../../base/task-worker.ts'
import { type CryptoTask, type CryptoTasks, runCryptoTask } from './crypto.ts'

serveTasks((task, input) => runCryptoTask(task as CryptoTask, input as CryptoTasks[CryptoTask]['in']))
