/** Files inside an instance: read and written by the daemon from outside, with no program of the guest involved. */
import { parseJson } from '../../base/json.ts'
import type { CallOptions, IncusClient } from './client.ts'
import { parseEnvelope, refusal } from './envelope.ts'
import type { TransportResponse } from './transport.ts'

/** Root's; a link is there whole or not at all, a folder may be there already. */
export interface NewEntry {
  readonly path: string
  readonly type?: 'file' | 'directory' | 'symlink'
  /** Such as 0o600. */
  readonly mode: number
  /** Of a file what is in it, of a link where it points. */
  readonly data?: string
}

export interface ReadFile {
  readonly data: Buffer
  readonly truncated: boolean
}

export type GuestEntry = { readonly type: 'file'; readonly size: number | undefined } | { readonly type: 'directory' | 'symlink' | 'other' }

const FILE_TIMEOUT_MS = 15_000
const MAX_LIST_BYTES = 4 * 1024 * 1024

export class GuestFiles {
  readonly #incus: IncusClient
  readonly #url: string

  constructor(incus: IncusClient, instance: string) {
    this.#incus = incus
    this.#url = `/1.0/instances/${encodeURIComponent(instance)}/files`
  }

  /** Replaces a file; its folder must be there. @throws incus_not_found without it */
  async write({ path, type = 'file', mode, data = '' }: NewEntry): Promise<void> {
    const headers = { 'x-incus-type': type, 'x-incus-uid': '0', 'x-incus-gid': '0', 'x-incus-mode': mode.toString(8).padStart(4, '0') }
    await this.#incus.call('POST', this.#url, { query: { path }, bytes: Buffer.from(data), headers, timeoutMs: FILE_TIMEOUT_MS })
  }

  /** What lies there, without reading it; undefined where nothing does. Links are not followed. */
  async stat(path: string): Promise<GuestEntry | undefined> {
    const response = await this.#ask('HEAD', path)
    if (response === undefined) return undefined
    const type = response.headers['x-incus-type']
    if (type === 'directory' || type === 'symlink') return { type }
    if (type !== 'file') return { type: 'other' }
    const size = Number(response.headers['content-length'])
    return { type, size: Number.isSafeInteger(size) ? size : undefined }
  }

  /**
   * The first `maxBytes` of a plain file; undefined where there is none, or something else than a file.
   * Incus shows a pipe as an empty file and would wait at it for ever: what is empty is not opened.
   */
  async read(path: string, maxBytes: number): Promise<ReadFile | undefined> {
    const entry = await this.stat(path)
    if (entry?.type !== 'file') return undefined
    return entry.size === 0 ? { data: Buffer.alloc(0), truncated: false } : await this.readUnsized(path, maxBytes)
  }

  /** As read, for what the kernel shows with no size (`/proc`). */
  async readUnsized(path: string, maxBytes: number): Promise<ReadFile | undefined> {
    const response = await this.#ask('GET', path, { maxBytes })
    if (response?.headers['x-incus-type'] !== 'file') return undefined
    return { data: response.body, truncated: response.truncated }
  }

  /** The names in a folder; undefined where there is none. */
  async list(path: string): Promise<readonly string[] | undefined> {
    const response = await this.#ask('GET', path, { maxBytes: MAX_LIST_BYTES })
    if (response?.headers['x-incus-type'] !== 'directory') return undefined
    const names = (parseJson(response.body.toString('utf8')) as { metadata?: unknown } | undefined)?.metadata
    return Array.isArray(names) ? names.filter((name) => typeof name === 'string') : []
  }

  async #ask(
    method: 'GET' | 'HEAD',
    path: string,
    options: CallOptions & { readonly maxBytes?: number } = {},
  ): Promise<TransportResponse | undefined> {
    const response = await this.#incus.raw(method, this.#url, { ...options, query: { path }, timeoutMs: FILE_TIMEOUT_MS })
    if (response.status === 404) return undefined
    if (response.status === 200) return response
    const what = `${method} files?path=${path}`
    // HEAD has no body to say why.
    const envelope = method === 'HEAD' ? undefined : parseEnvelope(response.body.toString('utf8'), what)
    throw refusal(response.status, envelope?.type === 'error' ? envelope.error : `status ${response.status}`, what)
  }
}
