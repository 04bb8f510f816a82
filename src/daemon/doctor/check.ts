/** What `pylon doctor` says of one thing. */
import type { Output } from '../../control/client.ts'
import type { nodeRoutes } from '../../control/contract/node.ts'

export type Report = Output<typeof nodeRoutes.doctor>
export type Check = Report['checks'][number]

export const ok = (name: string, message: string): Check => ({ name, state: 'ok', message })

const finding = (state: Check['state']) => {
  return (name: string, message: string, nextStep: string): Check => ({ name, state, message, next_step: nextStep })
}
export const warning = finding('warning')
export const skipped = finding('skipped')
export const failed = finding('failed')
