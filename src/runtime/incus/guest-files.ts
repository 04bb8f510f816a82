/** Files inside an instance: read and written by the daemon from outside, with no program of the guest involved. */
import { parseJson } from '../../base/json.ts'
import type { IncusClient } from './client.ts'
import { parseEnvelope, refusal } from './envelope.ts'

export interface FileOwner {
  readonly uid?: number
  readonly gid?: number
  /** Such as 0o600. */
  readonly mode: number
}

export interface ReadFile {
  readonly data: Buffer
  readonly truncated: boolean
}

export type GuestEntry = { readonly type: 'file'; readonly size: number | undefined } | { readonly type: 'directory' | 'symlink' | 'other' }

const FILE_TIMEOUT_MS = 15_000

const filesOf = (instance: string) => `/1.0/instances/${encodeURIComponent(instance)}/files`

/** Replaces the file; its folder must be there. @throws incus_not_found without it */
export async function writeGuestFile(
  incus: IncusClient,
  instance: string,
  path: string,
  data: string | Uint8Array,
  owner: FileOwner,
): Promise<void> {
  await post(incus, instance, path, 'file', typeof data === 'string' ? Buffer.from(data) : data, owner)
}

/** There already is fine. */
export async function makeGuestDir(incus: IncusClient, instance: string, path: string, owner: FileOwner): Promise<void> {
  await post(incus, instance, path, 'directory', new Uint8Array(0), owner)
}

/** A link, which is there whole or not at all. */
export async function linkGuestFile(incus: IncusClient, instance: string, path: string, target: string): Promise<void> {
  await post(incus, instance, path, 'symlink', Buffer.from(target), { mode: 0o777 })
}

async function post(
  incus: IncusClient,
  instance: string,
  path: string,
  type: 'file' | 'directory' | 'symlink',
  bytes: Uint8Array,
  owner: FileOwner,
): Promise<void> {
  await incus.call('POST', filesOf(instance), {
    query: { path },
    bytes,
    headers: {
      'x-incus-type': type,
      'x-incus-uid': String(owner.uid ?? 0),
      'x-incus-gid': String(owner.gid ?? 0),
      'x-incus-mode': owner.mode.toString(8).padStart(4, '0'),
    },
    timeoutMs: FILE_TIMEOUT_MS,
  })
}

/** What lies there, without reading it; undefined where nothing does. Links are not followed. */
export async function statGuestPath(incus: IncusClient, instance: string, path: string): Promise<GuestEntry | undefined> {
  const response = await incus.raw('HEAD', filesOf(instance), { query: { path }, timeoutMs: FILE_TIMEOUT_MS })
  if (response.status === 404) return undefined
  if (response.status !== 200) throw refusal(response.status, `status ${response.status}`, `HEAD ${path}`)
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
export async function readGuestFile(incus: IncusClient, instance: string, path: string, maxBytes: number): Promise<ReadFile | undefined> {
  const entry = await statGuestPath(incus, instance, path)
  if (entry?.type !== 'file') return undefined
  if (entry.size === 0) return { data: Buffer.alloc(0), truncated: false }
  return readUnsized(incus, instance, path, maxBytes)
}

/** As readGuestFile, for what the kernel shows with no size (`/proc`). */
export async function readUnsized(incus: IncusClient, instance: string, path: string, maxBytes: number): Promise<ReadFile | undefined> {
  const response = await incus.raw('GET', filesOf(instance), { query: { path }, maxBytes, timeoutMs: FILE_TIMEOUT_MS })
  if (response.status === 404) return undefined
  if (response.status !== 200) throw asRefusal(response.body, response.status, path)
  if (response.headers['x-incus-type'] !== 'file') return undefined
  return { data: response.body, truncated: response.truncated }
}

/** The names in a folder; undefined where there is none. */
export async function listGuestDir(incus: IncusClient, instance: string, path: string): Promise<readonly string[] | undefined> {
  const response = await incus.raw('GET', filesOf(instance), { query: { path }, timeoutMs: FILE_TIMEOUT_MS, maxBytes: 4 * 1024 * 1024 })
  if (response.status === 404) return undefined
  if (response.status !== 200) throw asRefusal(response.body, response.status, path)
  if (response.headers['x-incus-type'] !== 'directory') return undefined
  const names = (parseJson(response.body.toString('utf8')) as { metadata?: unknown } | undefined)?.metadata
  return Array.isArray(names) ? names.filter((name) => typeof name === 'string') : []
}

function asRefusal(body: Buffer, status: number, path: string): Error {
  const envelope = parseEnvelope(body.toString('utf8'), `files?path=${path}`)
  return refusal(status, envelope.type === 'error' ? envelope.error : `status ${status}`, `files?path=${path}`)
}
