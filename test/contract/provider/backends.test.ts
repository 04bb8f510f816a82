/** One suite for every backend, on real processes and a real HTTP server; then what only one of them can get wrong. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { ManualClock, systemClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { seededRandom } from '../../../src/base/random.ts'
import type { Backend, Work } from '../../../src/provider/backends/backend.ts'
import { createExecBackend } from '../../../src/provider/backends/exec.ts'
import { withHoldOff } from '../../../src/provider/backends/hold-off.ts'
import { createOpenAiBackend } from '../../../src/provider/backends/openai.ts'
import { createSummaryBackend } from '../../../src/provider/backends/summary.ts'

const PROVIDER = DEFAULT_CONFIG.provider

interface ModelServer {
  readonly baseUrl: string
  readonly requests: { path: string; body: Record<string, unknown>; authorization: string | undefined }[]
  /** What the next completions answer; undefined: the prompt, echoed. */
  answer: { status: number; body: string } | 'hang' | undefined
  models: string[]
  close(): void
}

let server: ModelServer
let dir: string

async function startModelServer(): Promise<ModelServer> {
  const state: Pick<ModelServer, 'requests' | 'answer' | 'models'> = { requests: [], answer: undefined, models: ['tiny', 'large'] }
  const http: Server = createServer(async (request, response) => {
    const text = await bodyOf(request)
    const body = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>
    state.requests.push({ path: request.url ?? '', body, authorization: request.headers.authorization })
    if (request.url === '/v1/models') return void response.end(JSON.stringify({ data: state.models.map((id) => ({ id })) }))
    if (state.answer === 'hang') return
    const messages = body['messages'] as { content: string }[]
    const echo = { model: body['model'], choices: [{ message: { content: `You said: ${messages[0]?.content}` }, finish_reason: 'stop' }] }
    response.statusCode = state.answer?.status ?? 200
    response.end(state.answer?.body ?? JSON.stringify(echo))
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  return Object.assign(state, {
    baseUrl: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    close() {
      http.closeAllConnections()
      http.close()
    },
  })
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

beforeAll(async () => {
  server = await startModelServer()
  dir = mkdtempSync(join(tmpdir(), 'pylon-backends-'))
})

afterAll(() => {
  server.close()
  rmSync(dir, { recursive: true, force: true })
})

const never = new AbortController().signal
const work = (kind: number, more: Partial<Work> = {}): Work => ({
  kind,
  input: 'Relays carry notes. Notes are signed. Signed notes are trusted by readers.',
  inputType: 'text',
  params: {},
  output: undefined,
  ...more,
})

const exec = (command: string[], more: { timeout_s?: number; max_output_bytes?: number } = {}): Backend =>
  createExecBackend({ kind: 5003, command, timeout_s: 10, max_output_bytes: 10_000, ...more }, systemClock)

async function openai(config: Partial<typeof PROVIDER> = {}): Promise<Backend> {
  const backend = createOpenAiBackend({ ...PROVIDER, openai_base_url: server.baseUrl, ...config })
  await backend.probe()
  return backend
}

describe.each<[string, number, () => Promise<Backend>]>([
  ['summary', 5001, async () => createSummaryBackend()],
  [
    'exec',
    5003,
    async () => {
      const backend = exec(['cat'])
      await backend.probe()
      return backend
    },
  ],
  ['openai', 5050, () => openai()],
])('backend %s', (name, kind, make) => {
  test('says what it is and serves its kind', async () => {
    const backend = await make()
    expect(backend.name.split(':')[0]).toBe(name)
    expect(backend.kinds()).toContain(kind)
    expect(backend.health().state).toBe('ok')
    expect(() => backend.check({ kind, params: {}, output: undefined, input: work(kind).input })).not.toThrow()
  })

  test('turns text into text, several at once', async () => {
    const backend = await make()
    const outputs = await Promise.all(
      [1, 2, 3].map((n) => backend.run(work(kind, { input: `Number ${n} is the first. It is a good one.` }), never)),
    )
    for (const [index, output] of outputs.entries()) expect(output).toContain(`Number ${index + 1}`)
  })

  test('takes hostile params without harm', async () => {
    const backend = await make()
    const params = { ['__proto__']: ['x'], 'a b;$(id)': ['`id`', '\0'], PATH: ['/evil'], NODE_OPTIONS: ['--require=/evil'] }
    await expect(backend.run(work(kind, { params }), never)).resolves.toEqual(expect.any(String))
  })

  test('stops when it is told before it began', async () => {
    const backend = await make()
    const signal = AbortSignal.abort(new PylonError('cancelled', 'enough'))
    const long = 'Many words make a text. '.repeat(5000)
    await expect(backend.run(work(kind, { input: long }), signal)).rejects.toMatchObject({ code: 'cancelled' })
  })
})

describe('exec', () => {
  const script = (source: string) => [process.execPath, '-e', source]

  test('gets the input on stdin, the params in a bare environment, a private folder', async () => {
    process.env['SECRET_OF_THE_NODE'] = 'x'
    onTestFinished(() => void delete process.env['SECRET_OF_THE_NODE'])
    const print = 'process.stdout.write(JSON.stringify({ env: process.env, cwd: process.cwd(), argv: process.argv.length }))'
    const output = await exec(script(print)).run(work(5003, { params: { 'top-p': ['0.5'], LD_PRELOAD: ['/evil.so'] } }), never)
    const { env, cwd } = JSON.parse(output) as { env: Record<string, string>; cwd: string }
    expect(env).toMatchObject({
      PYLON_KIND: '5003',
      PYLON_INPUT_TYPE: 'text',
      PYLON_PARAM_TOP_P: '0.5',
      PYLON_PARAM_LD_PRELOAD: '/evil.so',
    })
    const allowed = /^(?:PATH|HOME|LANG|PYLON_.*|__CF_USER_TEXT_ENCODING)$/
    expect(Object.keys(env).filter((name) => !allowed.test(name))).toEqual([])
    expect(cwd).toContain('pylon-exec-')
    expect(cwd).not.toBe(process.cwd())
  })

  test('never passes through a shell', async () => {
    expect(await exec(['echo', '$(id); `id`']).run(work(5003), never)).toBe('$(id); `id`')
  })

  test('a hanging command and its children are killed', async () => {
    const pidFile = join(dir, 'pid')
    const source = `const c = require('child_process').spawn('sleep', ['60']); require('fs').writeFileSync(${JSON.stringify(pidFile)}, String(c.pid)); setInterval(() => {}, 1000)`
    const backend = exec(script(source), { timeout_s: 1 })
    await expect(backend.run(work(5003), never)).rejects.toMatchObject({ code: 'backend_failed' })
    const pid = Number(readFileSync(pidFile, 'utf8'))
    await vi.waitFor(() => expect(isRunning(pid)).toBe(false), { timeout: 30_000 })
  })

  test('a command that ignores SIGTERM is killed when the job is given up', async () => {
    const pidFile = join(dir, 'stubborn')
    const source = `process.on('SIGTERM', () => {}); require('fs').writeFileSync(${JSON.stringify(pidFile)}, String(process.pid)); setInterval(() => {}, 1000)`
    const controller = new AbortController()
    const running = exec(script(source)).run(work(5003), controller.signal)
    const failed = expect(running).rejects.toMatchObject({ code: 'cancelled' })
    await vi.waitFor(() => expect(readFileSync(pidFile, 'utf8')).not.toBe(''), { timeout: 30_000 })
    controller.abort(new PylonError('cancelled', 'enough'))
    await failed
    await vi.waitFor(() => expect(isRunning(Number(readFileSync(pidFile, 'utf8')))).toBe(false), { timeout: 30_000 })
  })

  test('a flood is cut off', async () => {
    await expect(exec(['yes']).run(work(5003), never)).rejects.toMatchObject({ code: 'output_too_large' })
  })

  test('a crash and an exit code are failures, with what it wrote to stderr', async () => {
    await expect(exec(script('console.error("my words"); process.exit(3)')).run(work(5003), never)).rejects.toMatchObject({
      code: 'backend_failed',
      details: { exit_code: 3, stderr: 'my words' },
    })
    await expect(exec(script('process.kill(process.pid, "SIGKILL")')).run(work(5003), never)).rejects.toMatchObject({
      code: 'backend_failed',
      details: { signal: 'SIGKILL' },
    })
  })

  test('a command that reads nothing of a large input still answers', async () => {
    expect(await exec(['echo', 'done']).run(work(5003, { input: 'x'.repeat(2_000_000) }), never)).toBe('done')
  })

  test('a command that would not start is seen before anybody pays for it, and again once it is there', async () => {
    const [plain, orphan, later] = ['plain', 'orphan', 'later'].map((name) => join(dir, name)) as [string, string, string]
    writeFileSync(plain, '#!/bin/sh', { mode: 0o644 })
    writeFileSync(orphan, '#!/nonexistent/python', { mode: 0o755 })
    for (const file of ['/nonexistent/command', 'no-such-command-anywhere', 'bin/relative', dir, plain, orphan, later]) {
      const backend = exec([file])
      expect(backend.health().state).toBe('degraded')
      await backend.probe()
      expect(backend.health()).toMatchObject({ state: 'degraded', reason: expect.stringContaining('config.toml') })
    }
    const backend = exec([later])
    writeFileSync(later, '#!/bin/sh\ncat', { mode: 0o755 })
    await backend.probe()
    expect(backend.health().state).toBe('ok')
    const known = exec(['cat'])
    await known.probe()
    expect(known.health().state).toBe('ok')
  })

  test('a shell that does not find the command says that the backend is not there', async () => {
    await expect(exec(['sh', '-c', 'no-such-command-anywhere']).run(work(5003), never)).rejects.toMatchObject({
      code: 'backend_unavailable',
    })
  })

  test('what turns out not to be there is held off, the longer the more often, until it works again', async () => {
    const clock = new ManualClock()
    let fails = true
    const run = () => (fails ? Promise.reject(new PylonError('backend_unavailable', 'gone')) : Promise.resolve('done'))
    const backend = withHoldOff({ ...exec(['cat']), run, health: () => ({ state: 'ok', models: [] }) }, { clock, random: seededRandom(1) })
    const states: string[] = []
    for (const waitMs of [59_000, 2000, 119_000, 2000]) {
      if (states.length % 2 === 0) await expect(backend.run(work(5003), never)).rejects.toMatchObject({ code: 'backend_unavailable' })
      await clock.advance(waitMs)
      states.push(backend.health().state)
    }
    expect(states).toEqual(['degraded', 'ok', 'degraded', 'ok'])
    fails = false
    await backend.run(work(5003), never)
    expect(backend.health().state).toBe('ok')
  })
})

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    // A zombie whose parent has not waited yet is dead all the same.
    return !readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ')
  } catch {
    return false
  }
}

describe('openai', () => {
  test('passes on model and numbers, and nothing else of the params', async () => {
    const backend = await openai()
    server.requests.length = 0
    await backend.run(
      work(5050, {
        input: 'Hello',
        params: { model: ['large'], max_tokens: ['7'], temperature: ['0.5'], 'top-p': ['0.9'], tools: ['evil'] },
      }),
      never,
    )
    expect(server.requests[0]).toMatchObject({
      path: '/v1/chat/completions',
      body: { model: 'large', max_tokens: 7, temperature: 0.5, top_p: 0.9, stream: false, messages: [{ role: 'user', content: 'Hello' }] },
    })
    expect(server.requests[0]?.body).not.toHaveProperty('tools')
  })

  test.each([
    ['model', 'unheard-of'],
    ['max_tokens', '0'],
    ['max_tokens', '1e9'],
    ['max_tokens', '1.5'],
    ['temperature', 'hot'],
    ['temperature', ''],
    ['top_p', '2'],
  ])('refuses %s = %j', async (name, value) => {
    const backend = await openai()
    const check = () => backend.check({ kind: 5050, params: { [name]: [value] }, output: undefined, input: 'Hello' })
    expect(check).toThrowError(expect.objectContaining({ code: 'param_invalid' }))
  })

  test.each<[string, ModelServer['answer'], string]>([
    ['a fault', { status: 500, body: '{"error":{"message":"out of memory"}}' }, 'backend_unavailable'],
    ['a refusal', { status: 400, body: '{"error":"context too long"}' }, 'backend_failed'],
    ['no JSON', { status: 200, body: '<html>' }, 'backend_failed'],
    ['another shape', { status: 200, body: '{"choices":[]}' }, 'backend_failed'],
    ['only reasoning', { status: 200, body: '{"choices":[{"message":{"content":null,"reasoning_content":"hm"}}]}' }, 'backend_failed'],
    ['reasoning without an end', { status: 200, body: '{"choices":[{"message":{"content":"So <think>hm"}}]}' }, 'backend_failed'],
    ['a filter', { status: 200, body: '{"choices":[{"message":{"content":"a"},"finish_reason":"content_filter"}]}' }, 'backend_failed'],
    ['an empty answer', { status: 200, body: '{"choices":[{"message":{"content":" "}}]}' }, 'backend_failed'],
  ])('%s is a typed error', async (_what, answer, code) => {
    const backend = await openai()
    server.answer = answer
    await expect(backend.run(work(5050), never)).rejects.toMatchObject({ code })
    server.answer = undefined
  })

  test.each([
    ['without its reasoning', { content: '<think>\nhm\n</think>\n\nYes.' }, 'stop', 'Yes.'],
    ['of parts', { content: [{ type: 'text', text: 'Yes.' }] }, 'stop', 'Yes.'],
    ['up to where max_tokens cuts it', { content: 'Yes, bu' }, 'length', 'Yes, bu'],
  ])('sells the answer %s', async (_what, message, finish_reason, sold) => {
    const backend = await openai()
    server.answer = { status: 200, body: JSON.stringify({ choices: [{ message, finish_reason }] }) }
    expect(await backend.run(work(5050), never)).toBe(sold)
    server.answer = undefined
  })

  test('a hanging server ends with the job', async () => {
    const backend = await openai()
    server.answer = 'hang'
    const controller = new AbortController()
    const running = backend.run(work(5050), controller.signal)
    controller.abort(new PylonError('backend_failed', 'took too long'))
    await expect(running).rejects.toMatchObject({ code: 'backend_failed', message: 'took too long' })
    server.answer = undefined
  })

  test('sends the key of the file to the server that was named', async () => {
    const keyFile = join(dir, 'key')
    writeFileSync(keyFile, 'sk-secret\n')
    server.requests.length = 0
    await openai({ openai_api_key_file: keyFile })
    expect(server.requests[0]?.authorization).toBe('Bearer sk-secret')
  })

  test('says what is missing: no server, no such model, no key file', async () => {
    const gone = await openai({ openai_base_url: 'http://127.0.0.1:9' })
    expect(gone.health()).toMatchObject({ state: 'degraded', reason: expect.stringContaining('127.0.0.1:9') })
    await expect(gone.run(work(5050), never)).rejects.toMatchObject({ code: 'backend_unavailable' })
    expect((await openai({ openai_model: 'absent' })).health().reason).toContain('absent')
    expect((await openai({ openai_api_key_file: join(dir, 'none') })).health().reason).toContain('key file')
  })

  test('comes back when the server does', async () => {
    server.models = []
    const backend = await openai()
    expect(backend.health().state).toBe('degraded')
    server.models = ['tiny', 'large']
    await backend.probe()
    expect(backend.health()).toMatchObject({ state: 'ok', models: ['tiny', 'large'] })
  })
})
