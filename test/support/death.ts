/** How a process dies at a commit: right before it, or as soon as it is on disk. Nothing more is written then. */
import type { CommitHook } from '../../src/store/store.ts'

export class Death {
  isDead = false
  readonly isGone = (): boolean => this.isDead
  readonly hook: CommitHook

  /** @param at the label of the commit, or what knows it; undefined: it lives */
  constructor(at: string | ((label: string) => boolean) | undefined, { before = false }: { before?: boolean } = {}) {
    const isIt = (labels: readonly string[]) => labels.some((label) => (typeof at === 'function' ? at(label) : label === at))
    this.hook = {
      beforeCommit: (labels) => {
        if (before && isIt(labels)) this.isDead = true
        if (this.isDead) throw new Error('the process is dead')
      },
      afterCommit: (labels) => {
        if (isIt(labels)) this.isDead = true
      },
    }
  }
}
