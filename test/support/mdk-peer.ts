/** A Marmot peer on mdk, which nobody here wrote: the program of test/live/mdk-peer as a child process. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Event } from 'nostr-tools/pure'
import { vi } from 'vitest'

const SETUP = fileURLToPath(new URL('../live/setup-mdk.sh', import.meta.url))
const SETUP_TIMEOUT_MS = 920_000
const WAIT = { timeout: 20_000, interval: 20 }

/** Something that came to the peer; which fields there are, its `event` says. */
export interface PeerEvent {
  readonly event: 'joined' | 'message' | 'commit' | 'left' | 'proposal' | 'rollback' | 'refused'
  readonly nostr_group_id?: string
  readonly event_id?: string
  readonly sender?: string
  readonly kind?: number
  readonly content?: string
  readonly epoch?: number
  readonly name?: string
  readonly members?: readonly string[]
  readonly own?: boolean
  /** Of a proposal: the commit that this peer made of it at once. */
  readonly committed_by?: string
  readonly why?: string
}

export interface PeerGroup {
  readonly nostr_group_id: string
  readonly group_id: string
  readonly name: string
  readonly epoch: number
  readonly members: readonly string[]
  readonly admins: readonly string[]
}

interface PeerCommit extends PeerGroup {
  readonly event_id: string
  readonly welcome_wraps: readonly string[]
}

interface Answers {
  readonly identity: { readonly pubkey: string }
  readonly publish_key_package: { readonly event_id: string; readonly kind: number; readonly event: Event }
  readonly create_group: PeerGroup & { readonly welcome_wraps: readonly string[] }
  readonly send: { readonly event_id: string; readonly rumor_id: string }
  readonly self_update: PeerCommit
  readonly rename: PeerCommit
  readonly add: PeerCommit
  readonly remove: PeerCommit
  readonly members: PeerGroup
  readonly leave: { readonly event_id: string }
  readonly group_secrets: { readonly epoch: number; readonly group_event: string; readonly authenticator: string }
  readonly key_package_secrets: Readonly<Record<'init_private' | 'encryption_private' | 'signature_private' | 'signature_public', string>>
}

/** The program's path, or why it can't be had here; builds it first, which takes minutes the first time. */
export function mdkPeerProgram(): { readonly path: string; readonly missing: string | undefined } {
  const setup = spawnSync('sh', [SETUP], { encoding: 'utf8', timeout: SETUP_TIMEOUT_MS })
  const missing = setup.status === 0 ? undefined : (setup.stderr?.trim() || setup.error?.message || `${SETUP} failed`).slice(-300)
  return { path: setup.stdout?.trim() ?? '', missing }
}

export class MdkPeer implements AsyncDisposable {
  readonly events: PeerEvent[] = []
  readonly #child: ChildProcess
  readonly #answers = new Map<number, { resolve(ok: unknown): void; reject(error: Error): void }>()
  readonly #ended: Promise<void>
  #said = ''
  #calls = 0
  #pubkey = ''

  private constructor(child: ChildProcess) {
    this.#child = child
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString('utf8')).slice(-2000)
    })
    if (child.stdout) createInterface({ input: child.stdout }).on('line', (line) => this.#hear(line))
    this.#ended = new Promise((resolve) => {
      child.once('close', () => {
        for (const { reject } of this.#answers.values()) reject(new Error(`mdk-peer ended: ${this.#said}`))
        resolve()
      })
    })
  }

  /** Connected to the relay, with a key of its own or the one that is given as hex. */
  static async start(program: string, relayUrl: string, secret?: string): Promise<MdkPeer> {
    const env = { PATH: process.env['PATH'] ?? '', ...(secret === undefined ? {} : { MDK_PEER_SECRET: secret }) }
    const peer = new MdkPeer(spawn(program, [relayUrl], { env, stdio: ['pipe', 'pipe', 'pipe'] }))
    peer.#pubkey = (await peer.call('identity')).pubkey
    return peer
  }

  get pubkey(): string {
    return this.#pubkey
  }

  /** @throws Error with the program's words when it can't. */
  call<Command extends keyof Answers>(command: Command, parameters: Record<string, unknown> = {}): Promise<Answers[Command]> {
    this.#calls += 1
    const id = this.#calls
    return new Promise((resolve, reject) => {
      this.#answers.set(id, { resolve: (ok) => resolve(ok as Answers[Command]), reject })
      this.#child.stdin?.write(`${JSON.stringify({ ...parameters, id, cmd: command })}\n`)
    })
  }

  /** The first event of that kind which fits, now or when it has come. */
  async heard(event: PeerEvent['event'], fits: (event: PeerEvent) => boolean = () => true): Promise<PeerEvent> {
    const find = () => this.events.find((one) => one.event === event && fits(one))
    return await vi.waitUntil(find, WAIT)
  }

  messages(): (string | undefined)[] {
    return this.events.filter(({ event }) => event === 'message').map(({ content }) => content)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  #hear(line: string): void {
    const said = JSON.parse(line) as PeerEvent & { readonly id?: number; readonly ok?: unknown; readonly error?: string }
    if (said.id === undefined) {
      this.events.push(said)
      return
    }
    const answer = this.#answers.get(said.id)
    this.#answers.delete(said.id)
    if (said.error === undefined) answer?.resolve(said.ok)
    else answer?.reject(new Error(said.error))
  }
}
