/**
 * A server that answers as incusd was measured to, on a Unix socket, and keeps every request. An instance is a folder and
 * its init a process of this machine, so that the guest inside is the real one.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { dirname, join } from 'node:path'
import { PassThrough } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'

export interface Recorded {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: string
}

type Body = Record<string, unknown>
interface FakeInstance {
  readonly root: string
  status: 'Running' | 'Stopped'
  readonly body: Body & { name: string; config: Record<string, string>; devices: Record<string, Record<string, string>> }
  init?: ChildProcess
}
interface Operation {
  id: string
  status: string
  status_code: number
  err: string
  metadata: Record<string, unknown>
}
interface Session {
  readonly op: Operation
  readonly root: string
  readonly request: Body
  readonly sockets: Map<string, WebSocket>
  readonly input: PassThrough
}

class Refusal extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const POOLS = ['default', 'p', 'pylon']
const STOPPED_BOOT = 'an-earlier-boot'
const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')

export class RecordingIncus {
  readonly requests: Recorded[] = []
  readonly images = new Map<string, Record<string, string>>()
  readonly socketPath: string
  /** Answers to give instead, once each, to the requests that they name. */
  readonly #overrides: { method: string; pattern: RegExp; status: number; body: unknown }[] = []
  readonly #dir: string
  readonly #server: Server
  readonly #instances = new Map<string, FakeInstance>()
  readonly #volumes = new Map<
    string,
    { config: Record<string, string>; snapshots: Map<string, { at: string; config: Record<string, string> }> }
  >()
  /** What volumes say that they take and no snapshot holds. */
  usedBytes = 0
  /** The member that volumes are on. */
  location = 'none'
  readonly #operations = new Map<string, Operation>()
  readonly #sessions = new Map<string, Session>()
  readonly #listeners = new Set<WebSocket>()
  /** Whether the event stream can be had. */
  events = true

  constructor(dir: string) {
    this.#dir = dir
    this.socketPath = join(dir, 's')
    const sockets = new WebSocketServer({ noServer: true })
    this.#server = createServer((request, response) => void this.#handle(request, response))
    this.#server.on('upgrade', (request, socket, head) => {
      const url = new URL(request.url ?? '/', 'http://incus')
      if (url.pathname === '/1.0/events' && !this.events) return void socket.destroy()
      sockets.handleUpgrade(request, socket, head, (opened) => this.#attach(opened, url))
    })
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(this.socketPath, resolve))
  }

  async close(): Promise<void> {
    for (const instance of this.#instances.values()) stopInit(instance)
    for (const socket of this.#listeners) socket.terminate()
    this.#server.closeAllConnections()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  /** The next request of this kind gets this answer. */
  answerOnce(method: string, pattern: RegExp, status: number, body: unknown): void {
    this.#overrides.push({ method, pattern, status, body })
  }

  instance(name: string): FakeInstance | undefined {
    return this.#instances.get(name)
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const bytes = Buffer.concat(chunks)
    const [method, path] = [request.method ?? '', request.url ?? '']
    this.requests.push({ method, path, headers: request.headers as Recorded['headers'], body: bytes.toString('utf8') })
    const at = this.#overrides.findIndex((override) => override.method === method && override.pattern.test(path))
    if (at >= 0) {
      const [override] = this.#overrides.splice(at, 1)
      return send(response, override?.status ?? 500, override?.body)
    }
    try {
      await this.#route(request, response, new URL(path, 'http://incus'), bytes)
    } catch (error) {
      const status = error instanceof Refusal ? error.status : 500
      send(response, status, { type: 'error', error: (error as Error).message, error_code: status })
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse, url: URL, bytes: Buffer): Promise<void> {
    const parts = url.pathname.split('/').slice(2).map(decodeURIComponent)
    const method = request.method ?? ''
    const body = (): Body => JSON.parse(bytes.toString('utf8')) as Body
    const sync = (metadata: unknown) => send(response, 200, { type: 'sync', status: 'Success', status_code: 200, metadata })
    const async_ = (work: () => unknown) => this.#begin(response, work)
    const [first = '', second = '', third = ''] = parts
    if (first === '') return sync({ auth: 'trusted', environment: { server_clustered: false } })
    if (first === 'resources') return sync({ cpu: { total: 8 }, memory: { total: 16 * 2 ** 30 } })
    if ((first === 'projects' && second !== 'pylon') || (first === 'profiles' && second !== 'default')) throw new Refusal(404, 'Not Found')
    if (first === 'projects' || first === 'profiles') return sync({ name: second, devices: { root: { type: 'disk', path: '/' } } })
    if (first === 'images') return sync(this.#image(parts))
    if (first === 'operations') return this.#operation(response, second, third)
    if (first === 'storage-pools') return this.#volume(method, parts, body, sync, async_)
    if (first !== 'instances') throw new Refusal(404, 'Not Found')
    if (second === '') {
      if (method === 'POST') return this.#create(body(), async_)
      return sync([...this.#instances.values()].map(shown))
    }
    const instance = this.#instances.get(second)
    if (instance === undefined) throw new Refusal(404, 'Instance not found')
    if (third === 'files') return this.#files(request, response, instance, url.searchParams.get('path') ?? '/', bytes)
    if (third === 'exec') return this.#exec(response, instance, body())
    if (third === 'state' && method === 'GET') return sync({ status: instance.status })
    if (third === 'state') return async_(() => this.#setState(instance, body()))
    if (method === 'GET') return sync(shown(instance))
    if (method === 'PATCH') return sync(Object.assign(instance.body.devices, body()['devices']))
    if (method === 'DELETE') return async_(() => this.#delete(instance))
    throw new Refusal(404, 'Not Found')
  }

  #image(parts: readonly string[]): unknown {
    const name = parts[1] === 'aliases' ? parts.slice(2).join('/') : (parts[1] ?? '')
    const properties = this.images.get(name)
    if (properties === undefined) throw new Refusal(404, `Image alias not found`)
    return parts[1] === 'aliases' ? { target: name } : { fingerprint: name, type: 'container', properties }
  }

  #create(body: Body, async_: (work: () => unknown) => void): void {
    const name = String(body['name'])
    const config = body['config'] as Record<string, string>
    const devices = body['devices'] as Record<string, Record<string, string>>
    const root = join(this.#dir, name)
    const { alias = '' } = body['source'] as { alias?: string }
    if (!this.images.has(alias)) throw new Refusal(404, 'Image not found')
    if (this.#instances.has(name)) {
      const words = 'Failed creating instance record: UNIQUE constraint failed: instances.project_id, instances.name'
      async_(() => {
        throw new Refusal(400, words)
      })
      return
    }
    mkdirSync(join(root, 'etc'), { recursive: true })
    const instance: FakeInstance = { root, status: 'Stopped', body: { ...body, name, config, devices } }
    this.#instances.set(name, instance)
    async_(() => {
      for (const device of Object.values(devices)) {
        if (device['type'] !== 'disk' || device['path'] === '/' || device['source'] === undefined) continue
        if (!device['source'].startsWith('/')) this.#mount(join(root, device['path'] ?? ''), device['source'])
        else if (!existsSync(device['source'])) {
          this.#instances.delete(name)
          throw new Refusal(400, `Missing source path "${device['source']}"`)
        }
      }
    })
  }

  #mount(at: string, volume: string): void {
    mkdirSync(dirname(at), { recursive: true })
    symlinkSync(join(this.#dir, 'volumes', volume), at)
  }

  #setState(instance: FakeInstance, { action }: Body): void {
    if (action !== 'start') {
      if (instance.status === 'Stopped' && action === 'stop') throw new Refusal(400, 'The instance is already stopped')
      stopInit(instance)
      if (action === 'stop') return
    }
    if (instance.status === 'Running') throw new Refusal(400, 'The instance is already running')
    instance.status = 'Running'
    this.#openDoors(instance)
    const start = join(instance.root, 'etc/pylon/start')
    const env = { PATH: process.env['PATH'] ?? '', PYLON_ROOT: instance.root, PYLON_FAKE_INSTANCE: instance.root }
    instance.init = spawn('/bin/sh', ['-c', `while [ ! -x ${start} ]; do sleep 0.02; done; exec ${start}`], {
      env,
      stdio: 'ignore',
      detached: true,
    })
    instance.init.on('error', () => {})
  }

  /** A proxy device on a socket of the host: here both are on one file system. */
  #openDoors({ root, body }: FakeInstance): void {
    for (const { type, bind, listen = '', connect = '' } of Object.values(body.devices)) {
      if (type !== 'proxy' || bind !== 'instance') continue
      const at = join(root, listen.slice('unix:'.length))
      mkdirSync(dirname(at), { recursive: true })
      rmSync(at, { force: true })
      symlinkSync(connect.slice('unix:'.length), at)
    }
  }

  #delete(instance: FakeInstance): void {
    if (instance.status === 'Running') throw new Refusal(400, 'Instance is running')
    rmSync(instance.root, { recursive: true, force: true })
    this.#instances.delete(instance.body.name)
  }

  #volume(
    method: string,
    parts: readonly string[],
    body: () => Body,
    sync: (metadata: unknown) => void,
    async_: (work: () => unknown) => void,
  ) {
    const [, pool = '', kind, , name = '', what, snapshot = ''] = parts
    if (!POOLS.includes(pool)) throw new Refusal(404, 'Storage pool not found')
    if (kind === undefined) return sync({ name: pool, driver: 'btrfs' })
    const dir = join(this.#dir, 'volumes', name)
    const usersOf = (key: string) =>
      [...this.#instances.values()].filter(({ body: { devices } }) => Object.values(devices).some(({ source }) => source === key))
    const shownVolume = (key: string) => ({
      ...{ name: key, config: this.#volumes.get(key)?.config ?? {}, location: this.location },
      used_by: usersOf(key).map(({ body }) => `/1.0/instances/${body.name}`),
    })
    if (name === '' && method === 'GET') return sync([...this.#volumes.keys()].map(shownVolume))
    if (name === '') {
      const wanted = String(body()['name'])
      if (this.#volumes.has(wanted)) throw new Refusal(409, 'Volume by that name already exists')
      mkdirSync(join(this.#dir, 'volumes', wanted), { recursive: true })
      this.#volumes.set(wanted, { config: body()['config'] as Record<string, string>, snapshots: new Map() })
      return sync({})
    }
    const volume = this.#volumes.get(name)
    if (volume === undefined) throw new Refusal(404, 'Storage volume not found')
    const copyOf = (taken: string) => join(this.#dir, 'snapshots', name, taken)
    if (what === 'snapshots' && method === 'GET') {
      return sync([...volume.snapshots].map(([key, { at }]) => ({ name: `${name}/${key}`, created_at: at })))
    }
    if (what === 'snapshots' && method === 'POST') {
      const taken = String(body()['name'])
      if (volume.snapshots.has(taken)) throw new Refusal(409, `Snapshot by that name already exists`)
      return async_(() => {
        cpSync(dir, copyOf(taken), { recursive: true })
        volume.snapshots.set(taken, { at: new Date().toISOString(), config: { ...volume.config } })
      })
    }
    if (what === 'snapshots' && !volume.snapshots.has(snapshot)) throw new Refusal(404, 'Storage volume snapshot not found')
    if (what === 'snapshots') return async_(() => void volume.snapshots.delete(snapshot))
    if (what === 'state') return sync({ usage: { used: this.usedBytes, total: 0 } })
    if (method === 'GET') return sync(shownVolume(name))
    if (method === 'PATCH') return sync(Object.assign(volume.config, body()['config']))
    const users = usersOf(name)
    if (method === 'PUT') {
      if (users.some(({ status }) => status === 'Running')) throw new Refusal(500, 'Cannot restore custom volume used by running instances')
      for (const entry of readdirSync(dir)) rmSync(join(dir, entry), { recursive: true, force: true })
      cpSync(copyOf(String(body()['restore'])), dir, { recursive: true })
      // The real one brings the configuration of then back as well.
      volume.config = { ...volume.snapshots.get(String(body()['restore']))?.config }
      return sync({})
    }
    if (users.length > 0) throw new Refusal(400, 'The storage volume is still in use')
    rmSync(dir, { recursive: true, force: true })
    this.#volumes.delete(name)
    return sync({})
  }

  #files(request: IncomingMessage, response: ServerResponse, instance: FakeInstance, path: string, bytes: Buffer) {
    const header = (name: string) => String(request.headers[`x-incus-${name}`] ?? '')
    const file = inside(instance.root, path)
    if (request.method === 'POST') {
      // A form comes to an empty file: what the client must never send.
      let isNew = true
      const isForm = request.headers['content-type'] !== 'application/octet-stream'
      if (header('type') === 'symlink') {
        symlinkSync(this.#rebased(instance.root, bytes), file)
        return send(response, 200, { type: 'sync', metadata: {} })
      }
      if (header('type') === 'directory') mkdirSync(file, { recursive: true })
      else {
        if (!existsSync(dirname(file))) throw new Refusal(404, 'Not Found')
        isNew = !existsSync(file)
        writeFileSync(file, isForm ? '' : this.#rebased(instance.root, bytes))
      }
      // What is there keeps its mode.
      if (isNew) chmodSync(file, Number.parseInt(header('mode') || '0644', 8))
      return send(response, 200, { type: 'sync', metadata: {} })
    }
    if (path === '/proc/sys/kernel/random/boot_id') {
      if (instance.status !== 'Running') throw new Refusal(404, 'Not Found')
      return sendFile(response, 'file', Buffer.from(bootId))
    }
    const stat = lstatSync(file, { throwIfNoEntry: false })
    if (stat === undefined) throw new Refusal(404, 'Not Found')
    // Volumes are links of ours to their folders; any other link is shown as one.
    const isMount = stat.isSymbolicLink() && existsSync(file) && realpathSync(file).startsWith(join(realpathSync(this.#dir), 'volumes'))
    if (stat.isSymbolicLink() && !isMount) return sendFile(response, 'symlink', Buffer.from(readlinkSync(file)))
    if (stat.isDirectory() || isMount) {
      response.setHeader('X-Incus-type', 'directory')
      return send(response, 200, { type: 'sync', metadata: readdirSync(file) })
    }
    // Incus shows a pipe as an empty file.
    sendFile(response, 'file', stat.isFile() ? readFileSync(file) : Buffer.alloc(0))
  }

  /** Absolute paths in what the host hands over mean the instance's own. */
  #rebased(root: string, bytes: Buffer): string {
    const own = ['/etc/pylon', '/run/pika-cloud', '/run/pylon-door.sock']
    return own.reduce((text, path) => text.replaceAll(path, `${root}${path}`), bytes.toString('utf8'))
  }

  #exec(response: ServerResponse, instance: FakeInstance, request: Body): void {
    if (instance.status !== 'Running') throw new Refusal(400, 'Instance is not running')
    const op = this.#newOperation()
    op.metadata = { fds: { 0: 's0', 1: 's1', 2: 's2', control: 'sc' } }
    this.#sessions.set(op.id, { op, root: instance.root, request, sockets: new Map(), input: new PassThrough() })
    send(response, 202, { type: 'async', operation: `/1.0/operations/${op.id}`, metadata: op })
  }

  #attach(socket: WebSocket, url: URL) {
    if (url.pathname === '/1.0/events') {
      this.#listeners.add(socket)
      socket.on('close', () => this.#listeners.delete(socket))
      return
    }
    const session = this.#sessions.get(url.pathname.split('/')[3] ?? '')
    if (session === undefined) return socket.close()
    const secret = url.searchParams.get('secret') ?? ''
    session.sockets.set(secret, socket)
    if (secret === 's0') {
      // Input may come, and end, before the last socket is there.
      socket.on('message', (data: Buffer) => session.input.write(data))
      socket.on('close', () => session.input.end())
    }
    if (session.sockets.size === 4) this.#runSession(session)
  }

  #runSession({ op, root, request, sockets, input }: Session): void {
    const [command = '', ...args] = (request['command'] as string[]).map((word) =>
      word.replaceAll('/run/pika-cloud', `${root}/run/pika-cloud`).replaceAll('/etc/pylon', `${root}/etc/pylon`),
    )
    const env = { ...(request['environment'] as Record<string, string>), PATH: process.env['PATH'] ?? '', PYLON_ROOT: root }
    const child = spawn(command, args, { env, cwd: root, stdio: 'pipe', detached: true })
    child.stdin.on('error', () => {})
    input.pipe(child.stdin)
    sockets.get('sc')?.on('message', (data: Buffer) => {
      const message = JSON.parse(String(data)) as { command: string; signal: number }
      if (message.command === 'signal') child.kill(message.signal)
    })
    child.stdout.on('data', (chunk: Buffer) => sockets.get('s1')?.send(chunk, { binary: true }))
    child.stderr.on('data', (chunk: Buffer) => sockets.get('s2')?.send(chunk, { binary: true }))
    let notFound = false
    child.on('error', () => {
      notFound = true
    })
    child.on('close', (code, signal) => {
      for (const fd of ['s1', 's2']) sockets.get(fd)?.send('', { binary: false })
      const status = code ?? (signal === 'SIGKILL' ? 137 : 143)
      if (notFound || status === 127) this.#end(op, new Refusal(400, 'Command not found'))
      else {
        op.metadata = { return: status }
        this.#end(op)
      }
      for (const socket of sockets.values()) socket.terminate()
    })
  }

  #newOperation(): Operation {
    const op: Operation = { id: randomUUID(), status: 'Running', status_code: 103, err: '', metadata: {} }
    this.#operations.set(op.id, op)
    return op
  }

  /** 202, then the end, some time after: also before the answer has been read. */
  #begin(response: ServerResponse, work: () => unknown): void {
    const op = this.#newOperation()
    send(response, 202, { type: 'async', operation: `/1.0/operations/${op.id}?project=default`, metadata: { ...op } })
    setImmediate(() => {
      try {
        work()
        this.#end(op)
      } catch (error) {
        this.#end(op, error as Error)
      }
    })
  }

  #end(op: Operation, error?: Error): void {
    op.status = error === undefined ? 'Success' : 'Failure'
    op.status_code = error === undefined ? 200 : 400
    op.err = error?.message ?? ''
    const event = (metadata: unknown) => JSON.stringify({ type: 'operation', timestamp: new Date().toISOString(), metadata })
    for (const listener of this.#listeners) {
      listener.send(event(op))
      // Order is not guaranteed.
      listener.send(event({ ...op, status: 'Running', status_code: 103 }))
    }
  }

  #operation(response: ServerResponse, id: string, what: string) {
    const op = this.#operations.get(id)
    if (op === undefined) return send(response, 404, { type: 'error', error: 'Operation not found', error_code: 404 })
    if (what !== 'wait') return send(response, 200, { type: 'sync', metadata: op })
    const poll = setInterval(() => {
      if (op.status_code < 200) return
      clearInterval(poll)
      // A failed operation is waited for with status 200.
      if (op.status_code === 200) send(response, 200, { type: 'sync', metadata: op })
      else send(response, 200, { type: 'error', error: op.err, error_code: 400 })
    }, 5)
    response.on('close', () => clearInterval(poll))
  }
}

function shown({ body, status }: FakeInstance): Body {
  return { ...body, status, location: 'none', created_at: '2026-01-01T00:00:00Z' }
}

/** Kills all that was started in the instance, and makes its status that of an earlier boot. */
function stopInit(instance: FakeInstance): void {
  instance.status = 'Stopped'
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`PYLON_FAKE_INSTANCE=${instance.root}`))
        process.kill(Number(pid), 'SIGKILL')
      else if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`${instance.root}/`)) process.kill(Number(pid), 'SIGKILL')
    } catch {
      // Gone, or not ours to look at.
    }
  }
  const status = join(instance.root, 'run/pika-cloud/status.json')
  // A guest may have put something else there.
  if (lstatSync(status, { throwIfNoEntry: false })?.isFile())
    writeFileSync(status, readFileSync(status, 'utf8').replace(bootId.trim(), STOPPED_BOOT))
}

function inside(root: string, path: string): string {
  const file = join(root, path)
  if (file !== root && !file.startsWith(`${root}/`)) throw new Refusal(404, 'Not Found')
  return file
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

function sendFile(response: ServerResponse, type: string, data: Buffer): void {
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'X-Incus-type': type, 'content-length': String(data.length) })
  response.end(response.req.method === 'HEAD' ? undefined : data)
}
