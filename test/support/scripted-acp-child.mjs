// A scripted agent that speaks the Agent Client Protocol over stdio, written to the protocol's text and not to any SDK.
// A prompt decides what it does: `say X`, `env NAME`, `run COMMAND`, `tool`, `ask`, `slow`, `crash`, `refuse`, `recall`.
import { execSync } from 'node:child_process'

const send = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
const update = (sessionId, body) => send({ method: 'session/update', params: { sessionId, update: body } })
const say = (sessionId, text) => update(sessionId, { sessionUpdate: 'agent_message_chunk', content: { type: 'text', text } })
const waiting = new Map()
const heard = new Map()
const running = new Map()
let sessions = 0
let asked = 0

async function prompt(id, { sessionId, prompt: blocks }) {
  const text = blocks.map((block) => block.text ?? '').join('')
  const history = heard.get(sessionId) ?? []
  heard.set(sessionId, [...history, text])
  const [verb, ...rest] = text.split(' ')
  const argument = rest.join(' ')
  let stopReason = 'end_turn'
  if (verb === 'say') {
    for (const word of argument.split(/(?<= )/)) say(sessionId, word)
  } else if (verb === 'env') say(sessionId, process.env[argument] ?? 'unset')
  else if (verb === 'run') say(sessionId, execSync(argument, { encoding: 'utf8' }))
  else if (verb === 'recall') say(sessionId, history.join('|'))
  else if (verb === 'tool') {
    update(sessionId, { sessionUpdate: 'agent_thought_chunk', content: { type: 'text', text: 'hm' } })
    update(sessionId, { sessionUpdate: 'tool_call', toolCallId: 't1', title: 'look', kind: 'read', status: 'pending' })
    update(sessionId, { sessionUpdate: 'tool_call_update', toolCallId: 't1', status: 'completed' })
    say(sessionId, 'looked')
  } else if (verb === 'ask') {
    const options = [
      { optionId: 'no', name: 'No', kind: 'reject_once' },
      { optionId: 'yes', name: 'Yes', kind: 'allow_once' },
    ]
    const answer = new Promise((resolve) => waiting.set(`ask-${++asked}`, resolve))
    send({ id: `ask-${asked}`, method: 'session/request_permission', params: { sessionId, toolCall: { toolCallId: 't2' }, options } })
    say(sessionId, JSON.stringify((await answer).outcome))
  } else if (verb === 'slow') {
    if (argument !== '') say(sessionId, argument)
    stopReason = await new Promise((resolve) => running.set(sessionId, resolve))
  } else if (verb === 'crash') process.kill(process.pid, 'SIGKILL')
  else if (verb === 'refuse') stopReason = 'refusal'
  else return send({ id, error: { code: -32603, message: `cannot ${verb}` } })
  send({ id, result: { stopReason } })
}

function handle(message) {
  const { id, method, params } = message
  if (method === undefined) return waiting.get(id)?.(message.result)
  if (method === 'initialize') return send({ id, result: { protocolVersion: 1, agentCapabilities: {} } })
  if (method === 'session/new') return send({ id, result: { sessionId: `s${++sessions}` } })
  if (method === 'session/prompt') return void prompt(id, params)
  if (method === 'session/cancel') return running.get(params.sessionId)?.('cancelled')
  if (id !== undefined) send({ id, error: { code: -32601, message: 'no such method' } })
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
