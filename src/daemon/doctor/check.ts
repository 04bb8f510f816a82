/** What `pylon doctor` says of one thing. */
import type { Output } from '../../control/client.ts'
import type { nodeRoutes } from '../../control/contract/node.ts'

export type Report = Output<typeof nodeRoutes.doctor>
export type Check = Report['checks'][number]

export const ok = (name: string, message: string): Check => ({ name, state: 'ok', message })
export const warning = (name: string, message: string, nextStep: string): Check => ({
  name,
  state: 'warning',
  message,
  next_step: nextStep,
})
export const skipped = (name: string, message: string, nextStep: string): Check => ({
  name,
  state: 'skipped',
  message,
  next_step: nextStep,
})
export const failed = (name: string, message: string, nextStep: string): Check => ({ name, state: 'failed', message, next_step: nextStep })
