/**
 * The line grammar of models, pure: one action a line, everything else is reasoning.
 *
 *   POST: <text>                          REPLY: <note id> | <text>          REACT: <note id> [| <emoji>]
 *   DM: <npub> | <message>                CHANNEL: <id> | <message>          ZAP: <npub|note|nevent> | <sats>
 *   PAY_INVOICE: <bolt11>                 REQUEST_PAYMENT: <npub> | <sats> | <memo>
 *   SET_GOAL: <text>                      REMEMBER: <text>                   NOTHING
 *
 * Case does not matter. A line that begins with `>` is a quotation and never an action.
 */

/** An action as far as the grammar goes: its fields are checked by parseAction. */
export type RawAction = Readonly<Record<string, unknown>> & { readonly type: string }

export interface ParsedAnswer {
  readonly actions: readonly RawAction[]
  /** What is no action. */
  readonly thought: string
  /** Lines that begin like an action and are none, in words. */
  readonly problems: readonly string[]
}

const NOTHING = /^\s*(?:[-*]\s+)?nothing[.!]?\s*$/i
/** More lines than this are no answer but a flood. */
const MAX_LINES = 500

export function parseLines(answer: string): ParsedAnswer {
  const actions: RawAction[] = []
  const thought: string[] = []
  const problems: string[] = []
  const lines = answer.split(/\r\n|\r|\n/)
  if (lines.length > MAX_LINES) problems.push(`only the first ${MAX_LINES} of ${lines.length} lines are read`)
  for (const line of lines.slice(0, MAX_LINES)) {
    if (NOTHING.test(line)) {
      actions.push({ type: 'nothing' })
      continue
    }
    const match = VERB.exec(line)
    if (match === null) {
      thought.push(line)
      continue
    }
    const verb = (match[1] ?? '').toLowerCase()
    const read = READERS.get(verb)?.(verb, (match[2] ?? '').trim()) ?? 'is no action'
    if (typeof read === 'string') problems.push(`${verb.toUpperCase()}: ${read}`)
    else actions.push(read)
  }
  return { actions, thought: thought.join('\n').trim(), problems }
}

/** Reads what stands behind the verb. @returns the action, or what was expected, in words */
type Reader = (type: string, rest: string) => RawAction | string

const whole = (field: string, what: string): Reader => {
  return (type, rest) => (rest === '' ? `expected ${what}` : { type, [field]: rest })
}

function pair(left: string, right: string, shape: string): Reader {
  return (type, rest) => {
    const at = rest.indexOf('|')
    const [first, second] = [rest.slice(0, at).trim(), rest.slice(at + 1).trim()]
    return at < 0 || first === '' || second === '' ? `expected ${shape}` : { type, [left]: first, [right]: second }
  }
}

/** With its sats as a number. */
function inSats(read: Reader): Reader {
  return (type, rest) => {
    const action = read(type, rest)
    if (typeof action === 'string') return action
    const amount = String(action['sats'])
    const digits = /^(\d{1,15})(?:\s*sats?)?$/i.exec(amount)?.[1]
    return digits === undefined ? `${JSON.stringify(amount.slice(0, 40))} is no whole number of sats` : { ...action, sats: Number(digits) }
  }
}

const reaction = pair('to', 'content', '<note id> | <emoji>')
const message = pair('to', 'text', '<npub> | <message>')

const READERS = new Map<string, Reader>([
  ['post', whole('text', 'a text')],
  ['reply', pair('to', 'text', '<note id> | <text>')],
  ['react', (type, rest) => (rest === '' || rest.includes('|') ? reaction(type, rest) : { type, to: rest })],
  ['dm', message],
  ['dm44', (_type, rest) => message('dm', rest)],
  ['channel', pair('channel', 'text', '<channel id> | <message>')],
  ['zap', inSats(pair('to', 'sats', '<npub|note|nevent> | <sats>'))],
  ['pay_invoice', whole('invoice', 'an invoice')],
  ['request_payment', inSats(paymentRequest)],
  ['set_goal', whole('description', 'a text')],
  ['remember', whole('text', 'a text')],
])

const VERB = new RegExp(
  `^\\s*(?:[-*]\\s+)?(?:\\*\\*|\`)?(${[...READERS.keys()].join('|')})(?:\\*\\*|\`)?\\s*:\\s*(?:\\*\\*)?\\s*(.*)$`,
  'is',
)

function paymentRequest(type: string, rest: string): RawAction | string {
  const [to = '', sats = '', ...memo] = rest.split('|').map((part) => part.trim())
  return to === '' || sats === '' ? 'expected <npub> | <sats> | <memo>' : { type, to, sats, memo: memo.join(' | ') }
}
