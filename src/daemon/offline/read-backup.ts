/** Reads a backup into a folder and believes nothing of it before all of it was held against its manifest. */
import { closeSync, copyFileSync, openSync, readSync, statSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { readFileIfAny, writeNewFile } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'
import { readIdentity } from '../../nostr/keys/identity.ts'
import { text } from '../../store/row.ts'
import { Store } from '../../store/store.ts'
import { damaged, decrypt, type Key, lockOf, MAX_HEAD_BYTES } from '../backup/age.ts'
import { BACKUP_FILES, digestOf, MANIFEST, MAX_MANIFEST_BYTES, type Manifest, manifestSchema } from '../backup/format.ts'
import { BLOCK_BYTES, paddingOf, readTarHeader, type TarEntry } from '../backup/tar.ts'

const CHUNK_BYTES = 65_536

/** What is needed to open what is at `from`: nothing for a plain folder. @throws restore_refused, backup_damaged */
export function keyNeededFor(from: string): 'passphrase' | 'identity' | 'none' {
  try {
    if (statSync(from).isDirectory()) return 'none'
    const head = Buffer.alloc(MAX_HEAD_BYTES)
    const fd = openSync(from, 'r')
    try {
      const needed = lockOf(head.subarray(0, readSync(fd, head)))
      if (needed !== undefined) return needed
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (isPylonError(error)) throw error
    throw new PylonError('restore_refused', `The backup at ${from} can't be read: ${messageOf(error)}`, { cause: error })
  }
  throw noBackup(from)
}

/**
 * Brings its files into `dir` and checks each against the manifest.
 * @param key left out for a plain folder
 * @param network of the node that it is for @throws restore_refused, backup_damaged, passphrase_wrong, usage
 */
export async function unpackBackup(from: string, dir: string, key: Key | undefined, network: 'sandbox' | 'live'): Promise<Manifest> {
  const needed = keyNeededFor(from)
  if (needed === 'none') return await copyFolder(from, dir, network)
  if (key === undefined) throw new PylonError('usage', `The backup is encrypted: its ${needed} is needed.`)
  const file = await open(from)
  try {
    const source = new Source(await decrypt(ReadableStream.from(chunksOf(file)), key))
    const manifest = readManifest(await manifestIn(source), from, network)
    await unpackParts(source, dir)
    await checkParts(manifest, dir)
    return manifest
  } catch (error) {
    if (isPylonError(error)) throw error
    throw new PylonError('restore_refused', `The backup at ${from} can't be unpacked: ${messageOf(error)}`, { cause: error })
  } finally {
    await file.close()
  }
}

async function* chunksOf(file: FileHandle): AsyncGenerator<Uint8Array> {
  for (;;) {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(CHUNK_BYTES))
    if (bytesRead === 0) return
    yield buffer.subarray(0, bytesRead)
  }
}

/** Opens the unpacked database, which brings it to our schema, and proves that it is whole. @throws database_corrupt, database_newer */
export function openUnpacked(dir: string, from: string): Store {
  const store = Store.open(join(dir, BACKUP_FILES.database))
  try {
    const [row] = store.sql('PRAGMA integrity_check(1)').all()
    const verdict = row === undefined ? 'no answer' : text(row, 'integrity_check')
    if (verdict !== 'ok') throw new PylonError('database_corrupt', `The database in ${from} is damaged (${verdict}): use another backup.`)
    return store
  } catch (error) {
    store.close()
    throw error
  }
}

/** Whose it is. @throws restore_refused, identity_invalid */
export function identityIn(dir: string, from: string) {
  const identity = readIdentity(join(dir, BACKUP_FILES.identity))
  if (identity === undefined) throw new PylonError('restore_refused', `The backup at ${from} has no identity: it is not complete.`)
  return identity
}

const noBackup = (from: string) => new PylonError('restore_refused', `${from} is nothing that pylon backup wrote.`)

function readManifest(json: string, from: string, network: 'sandbox' | 'live'): Manifest {
  const parsed = manifestSchema.safeParse(parseJson(json))
  if (!parsed.success) throw noBackup(from)
  if (parsed.data.network !== network) {
    const hint = parsed.data.network === 'sandbox' ? 'add --sandbox' : 'leave --sandbox away'
    throw new PylonError('restore_refused', `The backup is of a ${parsed.data.network} node: ${hint}.`)
  }
  return parsed.data
}

async function copyFolder(from: string, dir: string, network: 'sandbox' | 'live'): Promise<Manifest> {
  let manifest: Manifest
  try {
    manifest = readManifest(readFileIfAny(join(from, MANIFEST)) ?? '', from, network)
    copyFileSync(join(from, BACKUP_FILES.database), join(dir, BACKUP_FILES.database))
    for (const name of [BACKUP_FILES.identity, BACKUP_FILES.config]) {
      if (statSync(join(from, name), { throwIfNoEntry: false }) !== undefined) copyFileSync(join(from, name), join(dir, name))
    }
  } catch (error) {
    if (isPylonError(error, 'restore_refused')) throw error
    throw new PylonError('restore_refused', `The backup at ${from} can't be copied: ${messageOf(error)}`, { cause: error })
  }
  await checkParts(manifest, dir)
  return manifest
}

/** Each part that the manifest names is there as it was written, and no other. @throws backup_damaged */
async function checkParts(manifest: Manifest, dir: string): Promise<void> {
  if (manifest.format === 1) return
  const named = new Set<string>(manifest.parts.map((part) => part.name))
  for (const name of Object.values(BACKUP_FILES)) {
    const isThere = statSync(join(dir, name), { throwIfNoEntry: false }) !== undefined
    if (isThere && !named.has(name)) throw damaged(`its manifest does not name ${name}`)
    if (!isThere && named.has(name)) throw damaged(`${name} is missing`)
  }
  for (const { name, bytes, sha256 } of manifest.parts) {
    const path = join(dir, name)
    if (statSync(path).size !== bytes || (await digestOf(path)) !== sha256) throw damaged(`${name} is not what was written`)
  }
}

async function manifestIn(source: Source): Promise<string> {
  const entry = readTarHeader(await source.take(BLOCK_BYTES))
  if (entry?.name !== MANIFEST || entry.bytes > MAX_MANIFEST_BYTES) throw damaged('it does not begin with its manifest')
  const json = await source.take(entry.bytes)
  await source.take(paddingOf(entry.bytes))
  return Buffer.from(json).toString('utf8')
}

async function unpackParts(source: Source, dir: string): Promise<void> {
  const left = new Set<string>(Object.values(BACKUP_FILES))
  for (;;) {
    const entry = readTarHeader(await source.take(BLOCK_BYTES))
    if (entry === undefined) break
    if (!left.delete(entry.name)) throw damaged(`it holds ${JSON.stringify(entry.name.slice(0, 50))}`)
    await unpackPart(source, entry, dir)
  }
  await source.take(BLOCK_BYTES)
  if (!(await source.isAtEnd())) throw damaged('something follows its end')
}

async function unpackPart(source: Source, { name, bytes }: TarEntry, dir: string): Promise<void> {
  await writeNewFile(join(dir, name), source.pass(bytes))
  await source.take(paddingOf(bytes))
}

/** A stream of which so many bytes are taken at a time; that it ends early, or that age refuses a piece, is damage. */
class Source {
  readonly #chunks: AsyncIterator<Uint8Array>
  #rest: Uint8Array = new Uint8Array(0)

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#chunks = stream[Symbol.asyncIterator]()
  }

  /** A few bytes. */
  async take(count: number): Promise<Uint8Array> {
    const chunks: Uint8Array[] = []
    for await (const chunk of this.pass(count)) chunks.push(chunk)
    return Buffer.concat(chunks)
  }

  /** Any number of bytes, as they come. */
  async *pass(count: number): AsyncGenerator<Uint8Array> {
    for (let left = count; left > 0; ) {
      if (this.#rest.length === 0 && !(await this.#more())) throw damaged('it ends too soon')
      const chunk = this.#rest.subarray(0, left)
      this.#rest = this.#rest.subarray(chunk.length)
      left -= chunk.length
      yield chunk
    }
  }

  async isAtEnd(): Promise<boolean> {
    while (this.#rest.length === 0) if (!(await this.#more())) return true
    return false
  }

  async #more(): Promise<boolean> {
    try {
      const { done, value } = await this.#chunks.next()
      if (done === true) return false
      this.#rest = value
      return true
    } catch (error) {
      throw damaged(`a piece of it is not what was written (${messageOf(error)})`)
    }
  }
}
