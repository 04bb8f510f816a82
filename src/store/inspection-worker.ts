/** The worker thread that goes through a database. */
import { serveTasks } from '../base/task-worker.ts'
import { type Inspections, inspectAt } from './inspection.ts'

serveTasks((task, input) => inspectAt(task as keyof Inspections, input as string))
