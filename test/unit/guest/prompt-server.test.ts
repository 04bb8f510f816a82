import { request } from 'node:http'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import type { Agent, Turn } from '../../../src/guest/agents/agent.ts'
import { PromptServer } from '../../../src/guest/prompt-server.ts'
import { MAX_PROMPT_BYTES, PROMPT_PATH } from '../../../src/runtime/contract/prompt.ts'
import { issueTicket, newTicketKey } from '../../../src/runtime/contract/ticket.ts'

const key = newTicketKey()
const turn = (reply: string): Turn => ({ reply, stopReason: 'end_turn', events: [] })

interface Sent {
  readonly status: number
  readonly body: Record<string, unknown>
}

async function serve(agent: Partial<Agent> | undefined) {
  const whole: Agent | undefined = agent && { start: async () => undefined, prompt: async (_s, message) => turn(message), ...agent }
  const server = new PromptServer({ runtimeId: 'r1', protocol: 'acp', ticketKey: key, clock: systemClock, agent: () => whole })
  const [host, port] = (await server.listen({ host: '127.0.0.1', port: 0 })).split(':')
  onTestFinished(() => server.close())
  return (body: unknown, options: { ticket?: string; path?: string; method?: string; signal?: AbortSignal } = {}) =>
    new Promise<Sent>((resolve, reject) => {
      const ticket = options.ticket ?? issueTicket(key, 'r1', Date.now())
      const headers = { authorization: `Bearer ${ticket}` }
      const { path = PROMPT_PATH, method = 'POST', signal } = options
      const outgoing = request({ host, port, path, method, headers, ...(signal === undefined ? {} : { signal }) }, (response) => {
        let text = ''
        response.on('data', (chunk) => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }))
      })
      outgoing.on('error', reject)
      outgoing.end(typeof body === 'string' ? body : JSON.stringify(body))
    })
}

const prompt = { session_id: 's', protocol: 'acp', message: 'hi' }

describe('the prompt endpoint', () => {
  test('answers a prompt', async () => {
    const post = await serve({})
    expect(await post(prompt)).toEqual({ status: 200, body: { schema_version: 1, session_id: 's', reply: 'hi', stop_reason: 'end_turn' } })
  })

  test('asks for a ticket before it reads anything', async () => {
    const post = await serve({})
    for (const ticket of ['', 'x.y', issueTicket(key, 'r2', Date.now()), issueTicket(newTicketKey(), 'r1', Date.now())]) {
      expect(await post('no json', { ticket })).toMatchObject({ status: 401, body: { error: 'unauthorized' } })
    }
  })

  test.each([
    ['no JSON', '{', 400, 'invalid_request'],
    ['an unknown field', { ...prompt, extra: 1 }, 400, 'invalid_request'],
    ['an empty message', { ...prompt, message: '' }, 400, 'invalid_request'],
    ['another protocol', { ...prompt, protocol: 'pi' }, 409, 'unsupported_protocol'],
    ['too much', { ...prompt, message: 'x'.repeat(MAX_PROMPT_BYTES) }, 413, 'request_too_large'],
  ])('refuses %s', async (_what, body, status, error) => {
    const post = await serve({})
    expect(await post(body)).toMatchObject({ status, body: { error } })
  })

  test('knows one path and one method', async () => {
    const post = await serve({})
    expect(await post(prompt, { path: '/rpc' })).toMatchObject({ status: 404 })
    expect(await post(prompt, { method: 'PUT' })).toMatchObject({ status: 405 })
  })

  test('gives the first answer again for a key, and refuses it for another message', async () => {
    let turns = 0
    const post = await serve({ prompt: async () => turn(`turn ${++turns}`) })
    const keyed = { ...prompt, idempotency_key: 'k' }
    const [a, b] = await Promise.all([post(keyed), post(keyed)])
    expect([a.body['reply'], b.body['reply'], (await post(keyed)).body['reply']]).toEqual(['turn 1', 'turn 1', 'turn 1'])
    expect(await post({ ...keyed, message: 'other' })).toMatchObject({ status: 409, body: { error: 'idempotency_conflict' } })
    expect((await post({ ...keyed, session_id: 't' })).body['reply']).toBe('turn 2')
  })

  test('lets a keyed turn go on when its client has gone', async () => {
    let finish: (turn: Turn) => void = () => undefined
    let turns = 0
    const post = await serve({
      prompt: () => {
        turns++
        return new Promise((resolve) => {
          finish = resolve
        })
      },
    })
    const gone = new AbortController()
    const keyed = { ...prompt, idempotency_key: 'k' }
    const first = post(keyed, { signal: gone.signal })
    await vi.waitFor(() => expect(turns).toBe(1), { timeout: 30_000 })
    gone.abort()
    await expect(first).rejects.toThrow()
    const second = post(keyed)
    finish(turn('late'))
    expect((await second).body['reply']).toBe('late')
    expect(turns).toBe(1)
  })

  test('does not keep a failure under a key', async () => {
    let turns = 0
    const post = await serve({
      prompt: async () => {
        if (++turns === 1) throw new Error('the model is down')
        return turn('up')
      },
    })
    const keyed = { ...prompt, idempotency_key: 'k' }
    expect(await post(keyed)).toMatchObject({ status: 502, body: { error: 'agent_failed', message: 'the model is down' } })
    expect((await post(keyed)).body['reply']).toBe('up')
  })

  test('runs the turns of one session in order and those of others beside them', async () => {
    const log: string[] = []
    const release = new Map<string, () => void>()
    const post = await serve({
      prompt: async (session, message) => {
        log.push(`${session}${message}`)
        await new Promise<void>((resolve) => release.set(`${session}${message}`, resolve))
        return turn('')
      },
    })
    const all = [post({ ...prompt, session_id: 'a', message: '1' })]
    await vi.waitFor(() => expect(log).toEqual(['a1']), { timeout: 30_000 })
    all.push(post({ ...prompt, session_id: 'a', message: '2' }), post({ ...prompt, session_id: 'b', message: '1' }))
    await vi.waitFor(() => expect(log).toEqual(['a1', 'b1']), { timeout: 30_000 })
    release.get('a1')?.()
    await vi.waitFor(() => expect(log).toEqual(['a1', 'b1', 'a2']), { timeout: 30_000 })
    release.get('a2')?.()
    release.get('b1')?.()
    await Promise.all(all)
  })

  test('tells a timeout, and that there is no agent', async () => {
    const never: Agent['prompt'] = (_s, _m, signal) =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    const post = await serve({ prompt: never })
    expect(await post({ ...prompt, timeout_ms: 20 })).toMatchObject({ status: 504, body: { error: 'timeout' } })
    const empty = await serve(undefined)
    expect(await empty(prompt)).toMatchObject({ status: 503, body: { error: 'agent_unavailable' } })
  })
})
