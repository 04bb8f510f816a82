/** `pylon agent new` in a terminal: what a person types, and what they see, over a real PTY (util-linux `script`). */
import { spawn, spawnSync } from 'node:child_process'
import { stripVTControlCharacters } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { managedRoutes } from '../../src/control/contract/managed.ts'
import { PROGRAM, Rig } from '../support/rig.ts'
import { shellAgent } from '../support/shell-agents.ts'

const canScript = spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout?.includes('util-linux') === true
const WAIT = { timeout: 60_000, interval: 50 }
/** `say wait X` is not ended before it is asked to. */
const SLOW_AGENT = shellAgent('pi').replace(
  '      message=',
  `      case $text in wait*)
        IFS= read -r line; id=$(printf '%s' "$line" | sed -n 's/.*"id":\\("[^"]*"\\).*/\\1/p'); type=abort; answer ''
        printf '{"type":"agent_end","messages":[{"role":"assistant","content":[],"stopReason":"aborted"}]}\\n'
        continue ;;
      esac
      message=`,
)

/** A program in a terminal of its own. */
function terminal(rig: Rig, args: readonly string[]) {
  const line = [...PROGRAM, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  const child = spawn('script', ['-qefc', line, '/dev/null'], { env: rig.env({ TERM: 'xterm', SHELL: '/bin/sh' }), cwd: rig.dir })
  onTestFinished(() => void child.kill('SIGKILL'))
  let shown = ''
  child.stdout.on('data', (chunk: Buffer) => {
    shown += chunk.toString('utf8')
  })
  const code = new Promise<number | null>((resolve) => child.once('close', resolve))
  const text = () => stripVTControlCharacters(shown).replaceAll('\r', '')
  return {
    type: (keys: string) => void child.stdin.write(keys),
    /** That it comes after what was seen last. */
    see: async (words: string | RegExp) => {
      await expect.poll(text, WAIT).toMatch(words)
    },
    text,
    code,
  }
}

const isGone = async (rig: Rig) => expect((await rig.call(managedRoutes.listManaged, {})).agents).toEqual([])

test.skipIf(!canScript)(
  'in a terminal: streamed words, tools, history, lines that go on; Ctrl-C ends a turn, then the program and its agent',
  async () => {
    await using rig = new Rig()
    await rig.ok('start', '--sandbox')
    // Else a failure leaves a guest, which outlives its node.
    await using _ended = {
      [Symbol.asyncDispose]: async () => {
        for (const name of ['bob', 'eve']) await rig.run(['agent', 'delete', name, '--yes'])
      },
    }
    const first = terminal(rig, ['agent', 'new', '--command', SLOW_AGENT, '--name', 'bob'])
    await first.see(/You talk to bob[\s\S]*> $/)
    first.type('say good morning\n')
    await first.see(/\ngood morning\n> $/)
    first.type('tool\n')
    await first.see(/\n {2}\[tool\] look \{\}\n {2}\[tool\] completed.*\nlooked\n> $/)
    // Back by one, and what was said last is there again.
    first.type('\u001b[A\u001b[A')
    await first.see(/> say good morning$/)
    first.type(', again\n')
    await first.see(/\ngood morning, again\n> $/)
    first.type('say one \\\n')
    first.type('two\n')
    await expect
      .poll(
        async () =>
          (await rig.call(managedRoutes.listen, { peer: 'bob', last: 20 })).messages.map(({ shown }) =>
            shown.map(({ text }) => text).join(''),
          ),
        WAIT,
      )
      .toContain('say one \ntwo')
    await first.see(/> $/)

    first.type('say wait here\n')
    await first.see(/\nwait here$/)
    first.type('\u0003')
    await first.see('its turn is ended; Ctrl-C once more leaves')
    await first.see(/\n> $/)
    first.type('say still here\n')
    await first.see(/\nstill here\n> $/)
    first.type('\u0003')
    expect(await first.code).toBe(130)
    expect(first.text()).toContain('bob was ended: its runtime is gone')
    await isGone(rig)

    const second = terminal(rig, ['agent', 'new', '--command', SLOW_AGENT, '--name', 'eve'])
    await second.see(/You talk to eve[\s\S]*> $/)
    second.type('\u0004')
    expect(await second.code).toBe(0)
    expect(second.text()).toContain('eve was ended: its runtime is gone')
    await isGone(rig)
  },
)
