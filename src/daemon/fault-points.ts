/** For tests only: PYLON_FAULT ends the process by SIGKILL around the commit of a named command (docs/operations.md). */
import { PylonError } from '../base/errors.ts'
import type { CommitHook } from '../store/store.ts'

/** @param order `before:<label>[:n]` or `after:<label>[:n]`: at the n-th commit (1 by default) that holds the label. @throws usage */
export function faultHook(order: string | undefined): CommitHook {
  if (order === undefined || order === '') return {}
  const match = /^(before|after):(.+?)(?::(\d+))?$/.exec(order)
  if (match === null) throw new PylonError('usage', 'PYLON_FAULT must be before:<label>[:n] or after:<label>[:n].')
  let left = Number(match[3] ?? '1')
  const strike = (labels: readonly string[]) => {
    if (!labels.includes(match[2] ?? '')) return
    left -= 1
    if (left === 0) process.kill(process.pid, 'SIGKILL')
  }
  return match[1] === 'before' ? { beforeCommit: strike } : { afterCommit: strike }
}
