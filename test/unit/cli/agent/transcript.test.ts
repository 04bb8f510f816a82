import { expect, test } from 'vitest'
import { joinLines, type Message, orderIn, Transcript } from '../../../../src/cli/agent/transcript.ts'

type Shown = Message['shown'][number]

const message = (shown: Shown[], over: Partial<Message> = {}): Message => ({
  ...{ id: 'a', seq: 1, from: 'npub1', own: false, kind: 9, type: 'text', content: '', shown, is_end: false, answers: null },
  ...{ state: 'new', reason: null, said_at: '2026-01-01T00:00:00Z', ...over },
})

function drawn(...messages: Message[]): string {
  let text = ''
  const transcript = new Transcript({
    write: (more) => {
      text += more
    },
  })
  for (const one of messages) transcript.show(one)
  return text
}

test('words go on where they ended, tools and errors have lines of their own', () => {
  const text = drawn(
    message([{ kind: 'delta', text: 'Let me ' }]),
    message([{ kind: 'delta', text: 'look' }]),
    message([{ kind: 'tool', text: 'read {"path":"a"}' }]),
    message([{ kind: 'delta', text: 'Done.' }]),
    message([], { is_end: true }),
    message([{ kind: 'error', text: 'no model' }], { is_end: true }),
  )
  expect(text).toBe('Let me look\n  [tool] read {"path":"a"}\nDone.\n! no model\n')
})

test("what is one's own is marked, and nothing drives the terminal", () => {
  expect(drawn(message([{ kind: 'text', text: 'hello' }], { own: true }))).toBe('> hello\n')
  expect(drawn(message([{ kind: 'text', text: 'a\u001b[2Jb' }]))).toBe('a\uFFFD[2Jb\n')
})

test.each<[string[], string, boolean]>([
  [['hello'], 'hello', false],
  [['one \\'], 'one ', true],
  [['one \\', 'two'], 'one \ntwo', false],
  [['pasted', 'block'], 'pasted\nblock', false],
  [['a backslash \\\\'], 'a backslash \\\\', false],
])('lines %j are %j', (lines, text, isOpen) => {
  expect(joinLines(lines)).toEqual({ text, isOpen })
})

test('what is typed is said as what it is; with no turn running there is nothing to abort or steer', () => {
  const idle = { isRunning: false, isWaitedFor: false }
  const busy = { isRunning: true, isWaitedFor: true }
  expect(orderIn('hello', idle)).toEqual({ kind: 'prompt', text: 'hello' })
  expect(orderIn('hello', busy)).toEqual({ kind: 'follow_up', text: 'hello' })
  // Somebody else's turn: it is not known to end.
  expect(orderIn('hello', { isRunning: true, isWaitedFor: false })).toEqual({ kind: 'prompt', text: 'hello' })
  expect(orderIn('/abort', busy)).toEqual({ kind: 'abort', text: '' })
  expect(orderIn('/steer left', busy)).toEqual({ kind: 'steer', text: 'left' })
  for (const piece of ['/abort', '/steer left'])
    expect(orderIn(piece, idle)).toMatchObject({ text: expect.stringContaining('no turn is running') })
  expect(orderIn('/steer', busy)).toMatchObject({ kind: 'note', text: expect.stringContaining('/steer TEXT') })
  expect(orderIn(' /quit ', idle)).toEqual({ kind: 'quit' })
})

test('a turn without a word is known', () => {
  const transcript = new Transcript({ write: () => undefined })
  transcript.show(message([{ kind: 'text', text: ' ' }], { is_end: true }))
  expect(transcript.isEmpty).toBe(true)
  transcript.show(message([{ kind: 'tool', text: 'look' }]))
  expect(transcript.isEmpty).toBe(false)
})
