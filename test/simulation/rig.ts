/**
 * Plays many seeded schedules, as many at once as there are cores, and stops at the first that goes wrong:
 *
 *     npm run test:faults -- --seed 1 --runs 10000
 *
 * ends with `10000 runs, 0 violations`; or with the first seed that failed, what was wrong and the fewest steps that show it,
 * and exit code 1. `--show` plays one seed with its schedule and its log. `--every-commit` plays one seed again and again: each of its
 * nodes is killed once before and once after each commit that it makes in the storm.
 */
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { minimise } from './minimise.ts'
import { playSchedule } from './scenario.ts'
import { inOrder, lineOf, type Schedule, scheduleOf } from './schedule.ts'
import { type Played, playAll, playOne, playWhatIsAsked } from './workers.ts'

const MINIMISE_TRIES = 120
const REPORT_EVERY = 100
/** How a node dies by `--every-commit`. */
const KILL = { fault: 'kill', atMs: 0, salt: 0, downMs: 5000 } as const

function* seeds(first: number, runs: number): Generator<Schedule> {
  for (let seed = first; seed < first + runs; seed++) yield scheduleOf(seed)
}

/** The schedule of a seed without its own kills, with one at each commit. */
async function deaths(seed: number): Promise<Schedule[]> {
  const all = scheduleOf(seed)
  const base = { ...all, steps: all.steps.filter((step) => !('fault' in step && step.fault === 'kill')) }
  const { problems, commits } = await playOne(base)
  if (problems.length > 0) return [base]
  const kills = commits.flatMap((count, node) =>
    Array.from({ length: count }, (_, i) => ['before' as const, 'after' as const].map((when) => ({ node, when, commits: i + 1 }))),
  )
  return kills.flat().map((kill) => ({ ...base, steps: [...base.steps, { ...KILL, ...kill }] }))
}

/** @returns how many were played, and the first that went wrong */
async function run(
  schedules: readonly Schedule[] | Generator<Schedule>,
  runs: number,
  jobs: number,
): Promise<[number, Played | undefined]> {
  let bad: Played | undefined
  let [done, kills] = [0, 0]
  const came = new Map<string, number>()
  const started = Date.now()
  function* untilBad() {
    for (const schedule of schedules) {
      if (bad !== undefined) return
      yield schedule
    }
  }
  const hear = (played: Played) => {
    done++
    kills += played.kills
    for (const deed of played.deeds) came.set(deed, (came.get(deed) ?? 0) + 1)
    if (played.problems.length > 0 && (bad === undefined || played.schedule.seed < bad.schedule.seed)) bad = played
    if (done % REPORT_EVERY === 0) console.log(`${done} of ${runs} runs, ${kills} kills, ${Math.round((Date.now() - started) / 1000)} s`)
  }
  await playAll(fileURLToPath(import.meta.url), untilBad(), { jobs: Math.min(jobs, runs), hear })
  const each = [...came].sort().map(([deed, times]) => `${deed} ${times}`)
  console.log(`${kills} kills; ${each.join(', ')}`)
  return [done, bad]
}

async function tell({ schedule, problems }: Played): Promise<void> {
  console.log(`seed ${schedule.seed} failed:`)
  for (const problem of problems) console.log(`  ${problem}`)
  console.log('Looking for the fewest steps that show it...')
  const isBad = async (tried: Schedule) => (await playOne(tried)).problems.length > 0
  const { steps, isFree, hasAgents, mints } = await minimise(schedule, isBad, MINIMISE_TRIES)
  const world = `${isFree ? 'no fees' : 'fees'}, ${hasAgents ? 'with' : 'without'} agents, ${mints} ${mints === 1 ? 'mint' : 'mints'}`
  console.log(`${steps.length} steps, ${world}:`)
  for (const step of inOrder(steps)) console.log(`  ${lineOf(step)}`)
  console.log(`To repeat it: npm run test:faults -- --show --seed ${schedule.seed}`)
}

async function show(seed: number): Promise<void> {
  const schedule = scheduleOf(seed)
  for (const step of inOrder(schedule.steps)) console.log(lineOf(step))
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
    'every-commit': { type: 'boolean', default: false },
    child: { type: 'boolean', default: false },
  },
})
const [seed, runs, jobs] = [values.seed, values.runs, values.jobs].map(Number) as [number, number, number]
if (values.child) {
  playWhatIsAsked()
} else if (![seed, runs, jobs].every((value) => Number.isSafeInteger(value) && value >= 1)) {
  console.error('--seed, --runs and --jobs are whole numbers from 1.')
  process.exitCode = 2
} else if (values.show) {
  await show(seed)
} else {
  const every = values['every-commit'] ? await deaths(seed) : undefined
  const [done, bad] = await run(every ?? seeds(seed, runs), every?.length ?? runs, jobs)
  if (bad === undefined) console.log(`${done} runs, 0 violations`)
  else {
    await tell(bad)
    process.exitCode = 1
  }
}
