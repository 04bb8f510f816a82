// A scripted agent that speaks the JSON lines of the pi coding agent's `--mode rpc`, one conversation at a time.
// A prompt decides what it does: `say X`, `env NAME`, `run COMMAND`, `tool`, `ask`, `slow`, `crash`, `refuse`, `recall`, `retry`.
import { execSync } from 'node:child_process'

const send = (message) => process.stdout.write(`${JSON.stringify(message)}\n`)
const files = new Map()
let file = '/sessions/1.jsonl'
let made = 1
let streaming = false
let onAbort
let onMore
const dialogs = new Map()
files.set(file, [])

const assistant = (text, stopReason, errorMessage) => ({ role: 'assistant', content: [{ type: 'text', text }], stopReason, errorMessage })

function say(text) {
  send({ type: 'message_start', message: assistant('') })
  for (const delta of text.split(/(?<= )/)) {
    send({ type: 'message_update', message: assistant(''), assistantMessageEvent: { type: 'text_delta', contentIndex: 0, delta } })
  }
  send({ type: 'message_end', message: assistant(text, 'stop') })
}

function end(text, stopReason = 'stop', errorMessage) {
  streaming = false
  send({ type: 'agent_end', messages: [{ role: 'user', content: 'x' }, assistant(text, stopReason, errorMessage)] })
}

async function prompt(text) {
  const history = files.get(file)
  files.set(file, [...history, text])
  streaming = true
  send({ type: 'agent_start' })
  const [verb, ...rest] = text.split(' ')
  const argument = rest.join(' ')
  if (verb === 'say') {
    say(argument)
    end(argument)
  } else if (verb === 'env') {
    say(process.env[argument] ?? 'unset')
    end('')
  } else if (verb === 'run') {
    say(execSync(argument, { encoding: 'utf8' }))
    end('')
  } else if (verb === 'recall') {
    say(history.join('|'))
    end('')
  } else if (verb === 'tool') {
    send({ type: 'message_update', message: {}, assistantMessageEvent: { type: 'thinking_delta', delta: 'hm' } })
    send({ type: 'tool_execution_start', toolCallId: 't1', toolName: 'look', args: {} })
    send({ type: 'tool_execution_end', toolCallId: 't1', toolName: 'look', result: {}, isError: false })
    say('looked')
    end('looked')
  } else if (verb === 'ask') {
    const answer = new Promise((resolve) => dialogs.set('d1', resolve))
    send({ type: 'extension_ui_request', id: 'd1', method: 'confirm', title: 'sure?' })
    say(JSON.stringify(await answer))
    end('')
  } else if (verb === 'slow') {
    if (argument !== '') say(argument)
    onAbort = () => end('', 'aborted')
    onMore = (text) => {
      say(text)
      end(text)
    }
  } else if (verb === 'crash') process.kill(process.pid, 'SIGKILL')
  else if (verb === 'refuse') end('', 'length')
  else if (verb === 'retry') {
    end('', 'error', 'overloaded')
    send({ type: 'auto_retry_start', attempt: 1, maxAttempts: 3, delayMs: 1, errorMessage: 'overloaded' })
    setTimeout(() => {
      streaming = true
      send({ type: 'agent_start' })
      say('at last')
      end('at last')
      send({ type: 'auto_retry_end', success: true, attempt: 1 })
    }, 50)
  } else end('', 'error', `cannot ${verb}`)
}

function handle(message) {
  const answer = (data) =>
    send({ id: message.id, type: 'response', command: message.type, success: true, ...(data === undefined ? {} : { data }) })
  switch (message.type) {
    case 'get_state':
      return answer({ isStreaming: streaming, pendingMessageCount: 0, sessionFile: file })
    case 'new_session':
      file = `/sessions/${++made}.jsonl`
      files.set(file, [])
      return answer({ cancelled: false })
    case 'switch_session':
      file = message.sessionPath
      return answer({ cancelled: false })
    case 'abort':
      onAbort?.()
      return answer()
    case 'steer':
    case 'follow_up':
      answer()
      return onMore?.(`${message.type} ${message.message}`)
    case 'prompt':
      answer()
      return void prompt(message.message)
    case 'extension_ui_response':
      return dialogs.get(message.id)?.({ cancelled: message.cancelled })
    default:
      send({ id: message.id, type: 'response', command: message.type, success: false, error: `unknown ${message.type}` })
  }
}

if (process.argv.includes('--mute')) setInterval(() => undefined, 1000)
else {
  let rest = ''
  process.stdin.setEncoding('utf8')
  process.stdin.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop()
    for (const line of lines) if (line.trim() !== '') handle(JSON.parse(line))
  })
}
