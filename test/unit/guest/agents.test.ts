/** Both protocols against a scripted agent process that knows nothing of our code. */
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import type { ProcessGroup } from '../../../src/base/processes.ts'
import { AcpAgent } from '../../../src/guest/agents/acp.ts'
import type { Agent, AgentEvent } from '../../../src/guest/agents/agent.ts'
import { PiAgent } from '../../../src/guest/agents/pi.ts'
import { startCommand } from '../../../src/guest/child-process.ts'

const support = join(dirname(fileURLToPath(import.meta.url)), '../../support')
const calm = new AbortController().signal

async function agentOf(protocol: 'acp' | 'pi', args = ''): Promise<{ agent: Agent; child: ProcessGroup }> {
  const command = `exec ${process.execPath} ${join(support, `scripted-${protocol}-child.mjs`)} ${args}`
  const child = startCommand({ command, cwd: support, env: { WORD: 'from the guest' }, clock: systemClock }, true)
  onTestFinished(async () => {
    child.stop(3000)
    await child.exited
  })
  const agent = protocol === 'acp' ? new AcpAgent(child, support) : new PiAgent(child)
  if (args === '') await agent.start(calm)
  return { agent, child }
}

describe.each(['acp', 'pi'] as const)('an agent over %s', (protocol) => {
  test('says in pieces what arrives whole', async () => {
    const { agent } = await agentOf(protocol)
    const text = 'one two \u2028 three'
    expect(await agent.prompt('s', `say ${text}`, calm)).toEqual({ reply: text, stopReason: 'end_turn', events: [] })
  })

  test('gets the environment of its command', async () => {
    const { agent } = await agentOf(protocol)
    expect((await agent.prompt('s', 'env WORD', calm)).reply).toBe('from the guest')
    expect((await agent.prompt('s', 'env VITEST', calm)).reply).toBe('unset')
  })

  test('keeps conversations apart and remembers each', async () => {
    const { agent } = await agentOf(protocol)
    await agent.prompt('a', 'say 1', calm)
    await agent.prompt('b', 'say 2', calm)
    await agent.prompt('a', 'say 3', calm)
    expect((await agent.prompt('a', 'recall', calm)).reply).toBe('say 1|say 3')
    expect((await agent.prompt('b', 'recall', calm)).reply).toBe('say 2')
  })

  test('reports what it did', async () => {
    const { agent } = await agentOf(protocol)
    const { reply, events } = await agent.prompt('s', 'tool', calm)
    expect(reply).toBe('looked')
    expect(events.map(({ type }) => type)).toEqual(['thought', 'tool_call', 'tool_result'])
  })

  test('tells of a turn while it runs', async () => {
    const { agent } = await agentOf(protocol)
    const heard: AgentEvent[] = []
    const onEvent = (event: AgentEvent) => void heard.push(event)
    await agent.prompt('s', 'say one two', calm, { onEvent })
    expect(heard).toEqual([
      { type: 'text', text: 'one ' },
      { type: 'text', text: 'two' },
    ])
    heard.length = 0
    await agent.prompt('s', 'tool', calm, { onEvent })
    expect(heard).toMatchObject([
      { type: 'thought', text: 'hm' },
      { type: 'tool_call', callId: 't1', name: 'look' },
      { type: 'tool_update', callId: 't1', status: 'completed' },
      { type: 'text', text: 'looked' },
    ])
  })

  test('is answered when it asks, since nobody else is there', async () => {
    const { agent } = await agentOf(protocol)
    const expected = protocol === 'acp' ? { outcome: 'selected', optionId: 'yes' } : { cancelled: true }
    expect(JSON.parse((await agent.prompt('s', 'ask', calm)).reply)).toEqual(expected)
  })

  test('passes its own errors and reasons on', async () => {
    const { agent } = await agentOf(protocol)
    await expect(agent.prompt('s', 'dance', calm)).rejects.toThrow('cannot dance')
    expect((await agent.prompt('s', 'refuse', calm)).stopReason).toBe(protocol === 'acp' ? 'refusal' : 'max_tokens')
  })

  test('stops a turn when it is told to, and serves the next', async () => {
    const { agent } = await agentOf(protocol)
    // Before the conversation is open, and within it.
    for (const _try of [1, 2]) {
      const stop = new AbortController()
      const slow = agent.prompt('s', 'slow', stop.signal)
      setImmediate(() => stop.abort(new Error('enough')))
      await expect(slow).rejects.toThrow('enough')
      expect((await agent.prompt('s', 'say again', calm)).reply).toBe('again')
    }
    expect((await agent.prompt('s', 'say on', calm)).reply).toBe('on')
  })

  test('fails a turn that it dies in', async () => {
    const { agent, child } = await agentOf(protocol)
    await expect(agent.prompt('s', 'crash', calm)).rejects.toThrow()
    expect(await child.exited).toMatchObject({ code: 137 })
    await expect(agent.prompt('s', 'say x', calm)).rejects.toThrow()
  })

  test('does not start when it says nothing', async () => {
    const { agent } = await agentOf(protocol, '--mute')
    const limit = new AbortController()
    setImmediate(() => limit.abort(new Error('silence')))
    await expect(agent.start(limit.signal)).rejects.toThrow()
  })
})

test('pi is waited for while it tries again', async () => {
  const { agent } = await agentOf('pi')
  expect(await agent.prompt('s', 'retry', calm)).toMatchObject({ reply: 'at last', stopReason: 'end_turn' })
})

describe('an agent over pi', () => {
  test.each(['steer', 'follow_up'] as const)('hears a %s within its turn, and only there', async (kind) => {
    const { agent } = await agentOf('pi')
    const slow = agent.prompt('s', 'slow', calm)
    await vi.waitFor(async () => expect(await agent.interject?.('s', kind, 'more', calm)).toBe(true))
    expect((await slow).reply).toBe(`${kind} more`)
    expect(await agent.interject?.('s', kind, 'more', calm)).toBe(false)
    expect((await agent.prompt('s', 'say next', calm)).reply).toBe('next')
  })
})
