/**
 * Plays many seeded schedules, as many at once as there are cores, and stops at the first that goes wrong:
 *
 *     npm run test:faults -- --seed 1 --runs 10000
 *
 * ends with `10000 runs, 0 violations`; or with the first seed that failed, what was wrong and the fewest steps that show it,
 * and exit code 1. `--show` plays one seed with its schedule and its log.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { minimise } from './minimise.ts'
import { playSchedule } from './scenario.ts'
import { lineOf, type Schedule, scheduleOf } from './schedule.ts'

const MINIMISE_TRIES = 120
/** A process makes some garbage with each run. */
const RUNS_OF_A_PROCESS = 100
const REPORT_EVERY = 100

interface Played {
  readonly seed: number
  readonly problems: readonly string[]
  readonly kills: number
  readonly deeds: readonly string[]
}

async function playOne(schedule: Schedule): Promise<Played> {
  try {
    const { problems, kills, deeds } = await playSchedule(schedule)
    return { seed: schedule.seed, problems, kills, deeds }
  } catch (error) {
    return { seed: schedule.seed, problems: [error instanceof Error ? (error.stack ?? error.message) : String(error)], kills: 0, deeds: [] }
  }
}

/** One process after the other that plays what it is given. */
async function work(seeds: Iterator<number>, hear: (played: Played) => void): Promise<void> {
  for (;;) {
    const child = fork(fileURLToPath(import.meta.url), ['--child'], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    try {
      for (let run = 0; run < RUNS_OF_A_PROCESS; run++) {
        const { value: seed, done } = seeds.next()
        if (done === true) return
        hear(await ask(child, seed))
      }
    } finally {
      child.kill()
    }
  }
}

function ask(child: ChildProcess, seed: number): Promise<Played> {
  return new Promise((resolve) => {
    const end = (problem: string) => resolve({ seed, problems: [problem], kills: 0, deeds: [] })
    const onExit = (code: number | null, signal: string | null) => end(`the process ended with ${code ?? signal}`)
    child.once('exit', onExit)
    child.once('message', (played: Played) => {
      child.removeListener('exit', onExit)
      resolve(played)
    })
    child.send(seed)
  })
}

async function run(first: number, runs: number, jobs: number): Promise<Played | undefined> {
  let bad: Played | undefined
  let done = 0
  let kills = 0
  const came = new Map<string, number>()
  const started = Date.now()
  function* seeds() {
    for (let seed = first; seed < first + runs && bad === undefined; seed++) yield seed
  }
  const left = seeds()
  const hear = (played: Played) => {
    done++
    kills += played.kills
    for (const deed of played.deeds) came.set(deed, (came.get(deed) ?? 0) + 1)
    if (played.problems.length > 0 && (bad === undefined || played.seed < bad.seed)) bad = played
    if (done % REPORT_EVERY === 0) console.log(`${done} of ${runs} runs, ${kills} kills, ${Math.round((Date.now() - started) / 1000)} s`)
  }
  await Promise.all(Array.from({ length: Math.min(jobs, runs) }, () => work(left, hear)))
  console.log(
    `${kills} kills; ${[...came]
      .sort()
      .map(([deed, times]) => `${deed} ${times}`)
      .join(', ')}`,
  )
  return bad
}

async function tell({ seed, problems }: Played): Promise<void> {
  console.log(`seed ${seed} failed:`)
  for (const problem of problems) console.log(`  ${problem}`)
  console.log('Looking for the fewest steps that show it...')
  const isBad = async (schedule: Schedule) => (await playOne(schedule)).problems.length > 0
  const { steps, isFree, hasAgents } = await minimise(scheduleOf(seed), isBad, MINIMISE_TRIES)
  console.log(`${steps.length} steps, ${isFree ? 'no fees' : 'fees'}, ${hasAgents ? 'with' : 'without'} agents:`)
  for (const step of [...steps].sort((a, b) => a.atMs - b.atMs)) console.log(`  ${lineOf(step)}`)
  console.log(`To repeat it: npm run test:faults -- --show --seed ${seed}`)
}

async function show(seed: number): Promise<void> {
  const schedule = scheduleOf(seed)
  for (const step of [...schedule.steps].sort((a, b) => a.atMs - b.atMs)) console.log(lineOf(step))
  const { lines, problems } = await playSchedule(schedule)
  process.stdout.write(lines.join(''))
  console.log(problems.length === 0 ? 'Nothing is wrong.' : problems.join('\n'))
}

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '1000' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    show: { type: 'boolean', default: false },
    child: { type: 'boolean', default: false },
  },
})
const [seed, runs, jobs] = [values.seed, values.runs, values.jobs].map(Number) as [number, number, number]
if (values.child) {
  process.on('message', (asked: number) => void playOne(scheduleOf(asked)).then((played) => process.send?.(played)))
} else if (![seed, runs, jobs].every((value) => Number.isSafeInteger(value) && value >= 1)) {
  console.error('--seed, --runs and --jobs are whole numbers from 1.')
  process.exitCode = 2
} else if (values.show) {
  await show(seed)
} else {
  const bad = await run(seed, runs, jobs)
  if (bad === undefined) console.log(`${runs} runs, 0 violations`)
  else {
    await tell(bad)
    process.exitCode = 1
  }
}
