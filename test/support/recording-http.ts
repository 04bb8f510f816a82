/** An HTTP server that keeps what it was asked (method, path, auth, body) and answers as scripted. */
import { createServer, type Server } from 'node:http'
import { onTestFinished } from 'vitest'

export interface Recorded {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly auth: string | undefined
  /** Parsed; undefined where there was none. */
  readonly body: unknown
}

export interface Scripted {
  readonly status?: number
  /** Text as it is, anything else as JSON. */
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** Never answers. */
  readonly hang?: boolean
}

export type Script = (request: Recorded) => Scripted | Promise<Scripted>

export interface RecordingServer {
  readonly url: string
  readonly requests: Recorded[]
  /** `GET /x` of each request, in order. */
  calls(): string[]
  /** Answers before the script does, once, to the first request that matches. */
  once(method: string, path: string | RegExp, answer: Scripted): void
  close(): Promise<void>
}

/** On 127.0.0.1 with a port of its own; ends with the test. */
export async function recordingServer(script: Script): Promise<RecordingServer> {
  const requests: Recorded[] = []
  const first: { method: string; path: string | RegExp; answer: Scripted }[] = []
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString('utf8')
      const { method = '', url = '' } = request
      const recorded: Recorded = {
        method,
        path: url,
        auth: request.headers.authorization,
        body: text === '' ? undefined : (JSON.parse(text) as unknown),
      }
      requests.push(recorded)
      const at = first.findIndex((one) => one.method === method && matches(one.path, url))
      const [special] = at === -1 ? [] : first.splice(at, 1)
      void Promise.resolve(special?.answer ?? script(recorded)).then(({ status = 200, body, headers = {}, hang }) => {
        if (hang === true) return
        const isText = typeof body === 'string'
        response.writeHead(status, { 'content-type': isText ? 'text/plain' : 'application/json', ...headers })
        response.end(body === undefined ? '' : isText ? body : JSON.stringify(body))
      })
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  let closed = false
  const close = async () => {
    if (closed) return
    closed = true
    server.closeAllConnections()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  }
  onTestFinished(close)
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    calls: () => requests.map(({ method, path }) => `${method} ${path}`),
    once: (method, path, answer) => void first.push({ method, path, answer }),
    close,
  }
}

function matches(wanted: string | RegExp, path: string): boolean {
  return typeof wanted === 'string' ? wanted === path : wanted.test(path)
}
