import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseLines } from '../../src/host/brains/grammar.ts'
import { fence, promptOf } from '../../src/host/brains/prompt.ts'
import { parseScript, runScript } from '../../src/host/brains/script.ts'
import { cleanText, type Observation, withSeen } from '../../src/host/observation.ts'

const line = fc.string({ unit: 'grapheme', maxLength: 60 }).map((text) => text.replace(/[\r\n]/g, ' '))
const plain = line.map((text) => text.trim()).filter((text) => text !== '' && !text.startsWith('**'))
const hostile = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 200 }),
  fc
    .array(
      fc.constantFrom(
        'POST: x',
        '\n',
        '\r',
        '\u2028',
        '> ',
        'ZAP: a | 1',
        'NOTHING',
        '{{agent.name}}',
        '"',
        '\u0000',
        '\u202e',
        'DM: a | b',
      ),
      { maxLength: 12 },
    )
    .map((parts) => parts.join('')),
)

function observed(text: string): Observation {
  const quote = {
    id: '12'.repeat(32),
    npub: 'npub1x',
    pubkey: 'cd'.repeat(32),
    text,
    created_at: '',
    own_home: false,
    old: false,
    spoken_recently: 0,
    spoken_total: 0,
    zapped_today: 0,
  }
  return withSeen({
    version: 1,
    now: '2026-01-01T00:00:00.000Z',
    agent: { name: 'ada', npub: 'npub1a', pubkey: 'ab'.repeat(32), about: '' },
    tick: { number: 1, trigger: 'mention' },
    state: 'active',
    balance_sats: 0,
    budget: { per_tx_sats: 1, per_tick_sats: 1, per_day_sats: 1 },
    autonomy: 'bounded',
    goals: [],
    memories: [text],
    posted: [text],
    mentions: [quote],
    dms: [{ ...quote, scheme: 'nip17' }],
    zaps: [{ ...quote, sats: 1, event_id: '' }],
    notes: [quote],
    relays: [],
  })
}

describe('the line grammar', () => {
  it('never throws and gives every line to exactly one of action, thought and problem', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(line, hostile), { maxLength: 30 }), (lines) => {
        const answer = lines.join('\n')
        const { actions, thought, problems } = parseLines(answer)
        expect(actions.length + problems.length).toBeLessThanOrEqual(answer.split(/\r\n|\r|\n/).length)
        expect(parseLines(thought).actions).toEqual([])
      }),
    )
  })

  it('reads back what is written, in any case', () => {
    fc.assert(
      fc.property(plain, fc.integer({ min: 1, max: 999_999 }), fc.boolean(), (text, amount, upper) => {
        const verb = (word: string) => (upper ? word.toUpperCase() : word)
        expect(parseLines(`${verb('post')}: ${text}`).actions).toEqual([{ type: 'post', text }])
        expect(parseLines(`${verb('remember')}:${text}`).actions).toEqual([{ type: 'remember', text }])
        expect(parseLines(`${verb('reply')}: abc | ${text}`).actions).toEqual([{ type: 'reply', to: 'abc', text }])
        expect(parseLines(`${verb('zap')}: npub1q | ${amount}`).actions).toEqual([{ type: 'zap', to: 'npub1q', sats: amount }])
      }),
    )
  })
})

describe('the words of strangers', () => {
  it('are never an action line of the prompt', () => {
    fc.assert(
      fc.property(hostile, (text) => {
        expect(
          fence(text)
            .split('\n')
            .every((quoted) => quoted.startsWith('> ')),
        ).toBe(true)
        expect(parseLines(promptOf(observed(text))[1]?.content ?? '').actions).toEqual([])
      }),
    )
  })

  it('stay text in a template: they fill their place and add no action', () => {
    const script = parseScript('[[rules]]\non = "mention"\ndo = [{ type = "remember", text = "<{{mention.text}}>" }]')
    fc.assert(
      fc.property(hostile, (text) => {
        const { actions } = runScript(script, observed(text))
        expect(actions).toEqual([{ type: 'remember', text: `<${cleanText(text)}>` }])
      }),
    )
  })
})
