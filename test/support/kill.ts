/** Ends all of them, those too that go with one another meanwhile. */
export function killAll(pids: readonly number[], signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
}
