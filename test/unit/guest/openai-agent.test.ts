/** The agent that is a model, against a server that streams, stalls and thinks aloud. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import type { AgentEvent } from '../../../src/guest/agents/agent.ts'
import { OpenAiAgent } from '../../../src/guest/agents/openai.ts'
import { tempDir } from '../../support/temp.ts'

const calm = new AbortController().signal

interface Asked {
  readonly model: string
  readonly messages: readonly { readonly role: string; readonly content: string }[]
}

/** Says the pieces in answer to each chat. */
async function model(pieces: () => readonly string[]): Promise<{ baseUrl: string; asked: Asked[] }> {
  const asked: Asked[] = []
  const server = createServer((request, response) => {
    if (request.url === '/v1/models') return void response.end(JSON.stringify({ data: [{ id: 'first' }, { id: 'second' }] }))
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      asked.push(JSON.parse(body))
      const said = pieces()
      if (said.length === 0) return
      for (const content of said) response.write(`data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`)
      response.end(`data: ${JSON.stringify({ choices: [{ delta: {}, finish_reason: 'stop' }] })}\n\ndata: [DONE]\n\n`)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

const agentAt = async (baseUrl: string, dir = tempDir()): Promise<OpenAiAgent> => {
  const agent = new OpenAiAgent({ server: { name: 'model', baseUrl }, model: '', system: 'be brief', dir })
  await agent.start(calm)
  return agent
}

test('streams, and remembers each conversation across its lives', async () => {
  const { baseUrl, asked } = await model(() => ['one ', 'two'])
  const dir = tempDir()
  const heard: AgentEvent[] = []
  const agent = await agentAt(baseUrl, dir)
  const turn = await agent.prompt('a', 'count', calm, { onEvent: (event) => void heard.push(event) })
  expect(turn).toEqual({ reply: 'one two', stopReason: 'end_turn', events: [] })
  expect(heard).toEqual([
    { type: 'text', text: 'one ' },
    { type: 'text', text: 'two' },
  ])
  await (await agentAt(baseUrl, dir)).prompt('a', 'go on', calm)
  await agent.prompt('b', 'hello', calm)
  expect(asked.map(({ model, messages }) => [model, messages.map(({ role, content }) => `${role}: ${content}`)])).toEqual([
    ['first', ['system: be brief', 'user: count']],
    ['first', ['system: be brief', 'user: count', 'assistant: one two', 'user: go on']],
    ['first', ['system: be brief', 'user: hello']],
  ])
})

test('tells no reasoning, neither in pieces nor in the end', async () => {
  const { baseUrl } = await model(() => ['<th', 'ink>hm', '</think>', 'the ', 'answer'])
  const heard: string[] = []
  const agent = await agentAt(baseUrl)
  const turn = await agent.prompt('a', 'think', calm, { onEvent: (event) => void (event.type === 'text' && heard.push(event.text)) })
  expect(turn.reply).toBe('the answer')
  expect(heard.join('')).toBe('the answer')
})

test('stops when it is told to, and keeps nothing of that turn', async () => {
  let pieces: readonly string[] = []
  const { baseUrl, asked } = await model(() => pieces)
  const agent = await agentAt(baseUrl)
  const stop = new AbortController()
  const slow = agent.prompt('a', 'slow', stop.signal)
  setImmediate(() => stop.abort(new Error('enough')))
  await expect(slow).rejects.toThrow('enough')
  pieces = ['yes']
  await agent.prompt('a', 'again', calm)
  expect(asked.at(-1)?.messages.map(({ content }) => content)).toEqual(['be brief', 'again'])
})
