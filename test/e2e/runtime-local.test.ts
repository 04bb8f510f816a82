/** Machines of one's own: one-shot runs, agents that take prompts, over Nostr and straight to the node. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

interface Answer {
  readonly runtime: { runtime_id: string; provider: string; lifecycle_phase: string; metadata: { state: string } }
  readonly payload: Record<string, unknown>
  readonly paid_msats: number
}

/** One node for all: each test leaves no machine behind. */
let rig: Rig
beforeAll(async () => {
  rig = new Rig()
  await rig.ok('start', '--sandbox')
})
afterAll(() => rig[Symbol.asyncDispose]())

test('a command runs once: exit code, output and files come back, and nothing stays', async () => {
  const run = await rig.run(['runtime', 'run', '--', 'sh', '-c', 'echo out; echo "it is" >&2; exit 3'])
  expect(run).toMatchObject({ code: 3, stdout: 'out\n' })
  expect(run.stderr).toContain('it is\n')
  expect(run.stderr).toContain('[control] queued: request queued\n')
  expect(run.stderr).toContain('[control] ready: the run is over\n')

  const script = 'cat > $PYLON_ARTIFACTS_DIR/a.txt <<E\nkept\nE\necho "$WORD"'
  const local = await rig.ok('runtime', 'run', '--local', '--json', '--env', 'WORD=by env', '--artifact', '*.txt', script)
  const answer = local.json<Answer>()
  expect(answer).toMatchObject({ paid_msats: 0, runtime: { provider: 'local', metadata: { state: 'gone' } } })
  expect(answer.payload).toMatchObject({ exit_code: 0, stdout: 'by env\n', artifacts_base64: { 'a.txt': btoa('kept\n') } })

  const long = await rig.run(['runtime', 'run', '--json', 'seq 1 20000'])
  expect(long.code).toBe(0)
  const { runtime, payload } = long.json<Answer>()
  expect(payload).toMatchObject({ error: 'output_too_large', exit_code: 0 })
  const collected = await rig.ok('runtime', 'collect', runtime.runtime_id, '--output', 'stdout')
  expect(collected.stdout.split('\n').slice(-2)).toEqual(['20000', ''])
  const { rentals } = (await rig.ok('runtime', 'rentals', '--json')).json<{ rentals: { state: string; paid_msats: number }[] }>()
  expect(rentals).toHaveLength(2)
  for (const rental of rentals) expect(rental).toMatchObject({ state: 'answered', paid_msats: 0 })
})

test.each(['pi', 'acp'] as const)('an agent that speaks %s is provisioned, prompted, snapshotted and torn down', async (protocol) => {
  const provision = ['runtime', 'provision', '--protocol', protocol, '--command', shellAgent(protocol), '--json']
  const first = (await rig.ok(...provision, '--idempotency-key', `one-${protocol}`)).json<Answer>()
  const id = first.runtime.runtime_id
  expect(first.runtime).toMatchObject({ provider: 'local', lifecycle_phase: 'ready' })
  const again = (await rig.ok(...provision, '--idempotency-key', `one-${protocol}`)).json<Answer>()
  expect(again.runtime.runtime_id).toBe(id)
  const other = await rig.run([...provision, '--name', 'another', '--idempotency-key', `one-${protocol}`])
  expect(other).toMatchObject({ code: 1 })
  expect(other.stderr).toContain('idempotency_conflict')

  const said = await rig.ok('runtime', 'prompt', id, 'say hello there', '--json')
  expect(said.json<Answer>().payload).toMatchObject({ reply: 'hello there', stop_reason: 'end_turn' })
  expect(await rig.run(['runtime', 'exec', id, '--', 'sh', '-c', 'echo inside; exit 4'])).toMatchObject({ code: 4, stdout: 'inside\n' })
  await rig.ok('runtime', 'exec', id, 'echo one > /data/f')
  await rig.ok('runtime', 'snapshot', id, 'first')
  await rig.ok('runtime', 'exec', id, 'echo two > /data/f')
  await rig.ok('runtime', 'restore', id)
  await expect.poll(async () => (await rig.run(['runtime', 'exec', id, 'cat /data/f'])).stdout, { timeout: 20_000 }).toBe('one\n')

  const listed = (await rig.ok('runtime', 'list', '--phase', 'ready', '--json')).json<Answer>()
  expect(listed.payload).toMatchObject({ count: 1, runtimes: [{ runtime_id: id }] })
  expect((await rig.ok('runtime', 'teardown', id)).stdout).toContain('deleted')
  expect((await rig.ok('runtime', 'get', id, '--json')).json<Answer>().runtime).toMatchObject({ lifecycle_phase: 'teardown' })
  const status = (await rig.ok('status', '--json')).json<{ runtimes: { state: string; by_state: object; substrates: object[] } }>()
  expect(status.runtimes).toMatchObject({ state: 'ok', by_state: {}, substrates: [{ provider: 'local', usable: true }] })
})

test('what does not exist or cannot be is said plainly', async () => {
  const errorOf = async (...args: string[]) => {
    const run = await rig.run([...args, '--json'])
    return { code: run.code, error: (JSON.parse(run.stderr.split('\n').at(-2) ?? '') as { error: object }).error }
  }
  expect(await errorOf('runtime', 'get', 'local-0000000000000000')).toMatchObject({ code: 1, error: { code: 'runtime_not_found' } })
  expect(await errorOf('runtime', 'get', 'local-0000000000000000', '--local')).toMatchObject({ error: { code: 'runtime_not_found' } })
  expect(await errorOf('runtime', 'provision', '--provider', 'fly')).toMatchObject({
    code: 1,
    error: { code: 'control_refused', details: { control_code: 'provider_temporarily_disabled' } },
  })
  expect(await errorOf('runtime', 'provision', '--class', 'huge', '--command', 'x')).toMatchObject({
    error: { details: { control_code: 'runtime_class_unavailable' } },
  })
  expect(await errorOf('runtime', 'run')).toMatchObject({ code: 2, error: { code: 'usage' } })
  const nobody = `npub1${'q'.repeat(58)}`
  expect(await errorOf('runtime', 'get', 'x', '--server', nobody)).toMatchObject({
    error: { code: expect.stringMatching(/pubkey|invalid/) },
  })
})
