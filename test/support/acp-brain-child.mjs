// A scripted brain that speaks the Agent Client Protocol over stdio, written to the protocol's text. Its argument is JSON:
// {answer, thought, said, used: [title], tools: [[name, args]], ask: [toolCall], run, stop, mode: 'slow' | 'crash' | 'flood'}. What its tools, its
// questions and its command gave goes into a line of the answer that is no action. It starts the MCP server that it is given.
import { spawn, spawnSync } from 'node:child_process'

const plan = JSON.parse(process.argv[2] ?? '{}')
const send = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
const update = (body) => send({ method: 'session/update', params: { sessionId: 's', update: body } })
const chunk = (sessionUpdate, text) => update({ sessionUpdate, content: { type: 'text', text } })
const waiting = new Map()
let servers = []
let cwd = ''
let asked = 0

function lines(stream, take) {
  let rest = ''
  stream.setEncoding('utf8')
  stream.on('data', (data) => {
    const parts = (rest + data).split('\n')
    rest = parts.pop()
    for (const part of parts) if (part.trim() !== '') take(JSON.parse(part))
  })
}

async function useTools({ command, args }) {
  const server = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env: process.env })
  const answers = new Map()
  lines(server.stdout, ({ id, result, error }) => answers.get(id)?.(result ?? { error }))
  let last = 0
  const call = (method, params) =>
    new Promise((resolve) => {
      answers.set(++last, resolve)
      server.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id: last, method, params })}\n`)
    })
  await call('initialize', { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'brain', version: '1' } })
  server.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
  const told = []
  for (const [name, toolArgs] of plan.tools ?? []) {
    update({ sessionUpdate: 'tool_call', toolCallId: `t${told.length}`, title: `pylon: ${name}`, status: 'pending' })
    const result = name === 'tools/list' ? await call('tools/list', {}) : await call('tools/call', { name, arguments: toolArgs })
    told.push(
      name === 'tools/list'
        ? result.tools.map((tool) => tool.name).join(',')
        : (result.content?.[0]?.text ?? JSON.stringify(result)).split('\n')[0],
    )
  }
  server.stdin.end()
  return told
}

async function prompt(id, params) {
  const report = { cwd, env: Object.keys(process.env).sort(), heard: params.prompt.map(({ text }) => text).join('') }
  if (plan.mode === 'slow') return
  if (plan.mode === 'crash') {
    process.stderr.write('no model here\n')
    process.exitCode = 3
    process.stdin.destroy()
    return
  }
  if (plan.mode === 'flood') for (let i = 0; i < 400; i++) chunk('agent_message_chunk', 'x'.repeat(1000))
  if (plan.thought !== undefined) chunk('agent_thought_chunk', plan.thought)
  if (plan.said !== undefined) chunk('agent_message_chunk', plan.said)
  for (const title of plan.used ?? []) update({ sessionUpdate: 'tool_call', toolCallId: 'u', title, status: 'pending' })
  if (servers.length > 0 && plan.tools !== undefined) report.told = await useTools(servers[0])
  report.servers = servers.map(({ name }) => name)
  report.allowed = []
  for (const toolCall of plan.ask ?? []) {
    const options = [
      { optionId: 'yes', name: 'Yes', kind: 'allow_once' },
      { optionId: 'no', name: 'No', kind: 'reject_once' },
    ]
    const answer = new Promise((resolve) => waiting.set(`ask-${++asked}`, resolve))
    send({
      id: `ask-${asked}`,
      method: 'session/request_permission',
      params: { sessionId: 's', toolCall: { toolCallId: 'a', ...toolCall }, options },
    })
    report.allowed.push((await answer).outcome.optionId)
  }
  if (plan.run !== undefined) report.run = spawnSync('sh', ['-c', plan.run], { encoding: 'utf8' }).stdout
  chunk('agent_message_chunk', `report ${JSON.stringify(report)}\n${plan.answer ?? 'NOTHING'}`)
  send({ id, result: { stopReason: plan.stop ?? 'end_turn' } })
}

lines(process.stdin, (message) => {
  const { id, method, params } = message
  if (method === undefined) return waiting.get(id)?.(message.result)
  if (method === 'initialize') return send({ id, result: { protocolVersion: 1, agentCapabilities: {} } })
  if (method === 'session/new') {
    ;({ mcpServers: servers, cwd } = params)
    return send({ id, result: { sessionId: 's' } })
  }
  if (method === 'session/prompt') return void prompt(id, params)
  if (id !== undefined) send({ id, error: { code: -32601, message: 'no such method' } })
})
