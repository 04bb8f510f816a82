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

const VERB =
  /^\s*(?:[-*]\s+)?(?:\*\*|`)?(post|reply|react|dm|dm44|channel|zap|pay_invoice|request_payment|set_goal|remember)(?:\*\*|`)?\s*:\s*(?:\*\*)?\s*(.*)$/is
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
    const read = readLine(verb, (match[2] ?? '').trim())
    if (typeof read === 'string') problems.push(`${verb.toUpperCase()}: ${read}`)
    else actions.push(read)
  }
  return { actions, thought: thought.join('\n').trim(), problems }
}

function readLine(verb: string, rest: string): RawAction | string {
  switch (verb) {
    case 'post':
    case 'remember':
      return rest === '' ? 'expected a text' : { type: verb, text: rest }
    case 'set_goal':
      return rest === '' ? 'expected a text' : { type: verb, description: rest }
    case 'pay_invoice':
      return rest === '' ? 'expected an invoice' : { type: verb, invoice: rest }
    case 'reply':
      return pair(rest, '<note id> | <text>', (to, text) => ({ type: 'reply', to, text }))
    case 'dm':
    case 'dm44':
      return pair(rest, '<npub> | <message>', (to, text) => ({ type: 'dm', to, text }))
    case 'channel':
      return pair(rest, '<channel id> | <message>', (channel, text) => ({ type: 'channel', channel, text }))
    case 'react':
      return readReact(rest)
    case 'zap':
      return pair(rest, '<npub|note|nevent> | <sats>', (to, amount) => withSats(amount, (sats) => ({ type: 'zap', to, sats })))
    default:
      return readPaymentRequest(rest)
  }
}

function pair(rest: string, shape: string, make: (left: string, right: string) => RawAction | string): RawAction | string {
  const at = rest.indexOf('|')
  const left = rest.slice(0, at).trim()
  const right = rest.slice(at + 1).trim()
  return at < 0 || left === '' || right === '' ? `expected ${shape}` : make(left, right)
}

function readReact(rest: string): RawAction | string {
  if (rest === '') return 'expected <note id> | <emoji>'
  return rest.includes('|')
    ? pair(rest, '<note id> | <emoji>', (to, content) => ({ type: 'react', to, content }))
    : { type: 'react', to: rest }
}

function readPaymentRequest(rest: string): RawAction | string {
  const [to = '', amount = '', ...memo] = rest.split('|').map((part) => part.trim())
  if (to === '' || amount === '') return 'expected <npub> | <sats> | <memo>'
  return withSats(amount, (sats) => ({ type: 'request_payment', to, sats, memo: memo.join(' | ') }))
}

function withSats(amount: string, make: (sats: number) => RawAction): RawAction | string {
  const digits = /^(\d{1,15})(?:\s*sats?)?$/i.exec(amount)?.[1]
  return digits === undefined ? `${JSON.stringify(amount.slice(0, 40))} is no whole number of sats` : make(Number(digits))
}
