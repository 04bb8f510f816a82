/** What `pylon doctor` says of one thing, and how each check is run: alone, within a time, so that what is broken hides nothing else. */
import { messageOf, PylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import type { Output } from '../../control/client.ts'
import type { nodeRoutes } from '../../control/contract/node.ts'
import type { PylonNode } from '../node.ts'
import type { ReadServices } from '../services.ts'

export type Report = Output<typeof nodeRoutes.doctor>
export type Check = Report['checks'][number]

export const ok = (name: string, message: string): Check => ({ name, state: 'ok', message })

const finding = (state: Check['state']) => {
  return (name: string, message: string, nextStep: string): Check => ({ name, state, message, next_step: nextStep })
}
export const warning = finding('warning')
export const skipped = finding('skipped')
export const failed = finding('failed')

export interface Examination {
  /** Names the finding when the check itself cannot be made. */
  readonly name: string
  /** May throw: that is a finding. @param node absent while it is stopped */
  run(read: ReadServices, node: PylonNode | undefined): Check | readonly Check[] | Promise<Check | readonly Check[]>
}

const PATIENCE_MS = 20_000

/** Runs one check; what it throws becomes its finding. */
export async function examineOne(
  { name, run }: Examination,
  scope: Scope,
  read: ReadServices,
  node: PylonNode | undefined,
): Promise<readonly Check[]> {
  const late = () => new PylonError('timeout', `it took longer than ${PATIENCE_MS / 1000} s`)
  try {
    return [await scope.within(name, PATIENCE_MS, () => run(read, node), late)].flat()
  } catch (error) {
    if (messageOf(error) === whyClosed(read)) return [skipped(name, 'The database cannot be read.', 'See database.')]
    return [failed(name, `This could not be checked: ${messageOf(error)}`, 'See the other checks first; then: pylon logs')]
  }
}

/** Why the database of a stopped node does not open; undefined when it does. */
function whyClosed(read: ReadServices): string | undefined {
  try {
    void read.store
    return undefined
  } catch (error) {
    return messageOf(error)
  }
}
