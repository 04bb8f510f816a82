/** Processes that play schedules, one after the other, and say what came of each. */
import { type ChildProcess, fork } from 'node:child_process'
import { playSchedule } from './scenario.ts'
import type { Schedule } from './schedule.ts'

/** A process makes some garbage with each run. */
const RUNS_OF_A_PROCESS = 100

export interface Played {
  readonly schedule: Schedule
  readonly problems: readonly string[]
  readonly kills: number
  readonly deeds: readonly string[]
  /** Of each node in the storm. */
  readonly commits: readonly number[]
}

const NOTHING = { kills: 0, deeds: [], commits: [] }

export async function playOne(schedule: Schedule): Promise<Played> {
  try {
    const { problems, kills, deeds, commits } = await playSchedule(schedule)
    return { schedule, problems, kills, deeds, commits }
  } catch (error) {
    return { ...NOTHING, schedule, problems: [error instanceof Error ? (error.stack ?? error.message) : String(error)] }
  }
}

/** What a process does that was started to play. */
export function playWhatIsAsked(): void {
  process.on('message', (schedule: Schedule) => void playOne(schedule).then((played) => process.send?.(played)))
}

/**
 * Plays them all, in `jobs` processes.
 * @param program is started with `--child` and calls `playWhatIsAsked`
 */
export async function playAll(
  program: string,
  schedules: Iterator<Schedule>,
  options: { readonly jobs: number; hear(played: Played): void },
): Promise<void> {
  await Promise.all(Array.from({ length: options.jobs }, () => work(program, schedules, options.hear)))
}

async function work(program: string, schedules: Iterator<Schedule>, hear: (played: Played) => void): Promise<void> {
  for (;;) {
    const child = fork(program, ['--child'], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    try {
      for (let run = 0; run < RUNS_OF_A_PROCESS; run++) {
        const { value: schedule, done } = schedules.next()
        if (done === true) return
        hear(await ask(child, schedule))
      }
    } finally {
      child.kill()
    }
  }
}

function ask(child: ChildProcess, schedule: Schedule): Promise<Played> {
  return new Promise((resolve) => {
    const onExit = (code: number | null, signal: string | null) =>
      resolve({ ...NOTHING, schedule, problems: [`the process ended with ${code ?? signal}`] })
    child.once('exit', onExit)
    child.once('message', (played: Played) => {
      child.removeListener('exit', onExit)
      resolve(played)
    })
    child.send(schedule)
  })
}
