/**
 * Reads below a folder that a hostile guest writes to: each component is opened relative to the one before, no symlink
 * is followed, only regular files are read, and never further than a cap. Linux: relative opens go by /proc/self/fd.
 */
import {
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  lstatSync,
  mkdirSync,
  opendirSync,
  openSync,
  readlinkSync,
  readSync,
  rmSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { CollectedArtifact } from './adapter.ts'
import { componentsOf } from './contract/paths.ts'

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_WRONLY, O_CREAT, O_EXCL } = constants
/** Deeper trees are a trap. */
const MAX_DEPTH = 64

export interface CappedText {
  readonly text: string
  readonly truncated: boolean
}

export interface GatherLimits {
  readonly maxFiles: number
  readonly maxFileBytes: number
  readonly maxTotalBytes: number
}

/** A file's bytes, at most `maxBytes` of them from its start (or end); undefined where there is no such regular file. */
export function readContained(
  root: string,
  path: string,
  maxBytes: number,
  from: 'start' | 'end' = 'start',
): { data: Buffer; truncated: boolean } | undefined {
  return inFolder(root, path, (dir, name) => readAt(dir, name, maxBytes, from))
}

/** Does something with a name in its folder; undefined where the way there is no way of folders, or leads out. */
function inFolder<T>(root: string, path: string, work: (dir: number, name: string) => T): T | undefined {
  const parts = [...componentsOf(path)]
  const name = parts.pop()
  if (name === undefined || name === '..' || parts.includes('..')) return undefined
  const dir = openBelow(root, parts)
  if (dir === undefined) return undefined
  try {
    return work(dir, name)
  } finally {
    closeSync(dir)
  }
}

/** The folder at these components below `root`, none of them a symlink; undefined where there is no such folder. */
function openBelow(root: string, parts: readonly string[]): number | undefined {
  let dir = openDir(root)
  for (const part of parts) {
    if (dir === undefined) return undefined
    const next = openDir(at(dir, part))
    closeSync(dir)
    dir = next
  }
  return dir
}

/** As readContained, as UTF-8. */
export function readContainedText(root: string, path: string, maxBytes: number, from: 'start' | 'end' = 'start'): CappedText | undefined {
  const read = readContained(root, path, maxBytes, from)
  return read === undefined ? undefined : { text: read.data.toString('utf8'), truncated: read.truncated }
}

/** Removes what is at a path, be it a file, a link (not what it points to) or a folder; nothing where the way there is a link. */
export function removeContained(root: string, path: string): void {
  inFolder(root, path, (dir, name) => rmSync(at(dir, name), { recursive: true, force: true }))
}

/** Regular files below `root`/`sub` that `wanted` accepts, within limits; `problems` says what was left out. */
export async function gatherFiles(
  root: string,
  sub: string,
  wanted: (path: string) => boolean,
  limits: GatherLimits,
): Promise<{ files: CollectedArtifact[]; truncated: boolean; problems: string[] }> {
  const files: CollectedArtifact[] = []
  const problems: string[] = []
  let truncated = false
  let total = 0
  const refuse = (path: string, why: string) => {
    if (problems.length < 50) problems.push(`${path}: ${why}`)
  }
  const inside = await walk(openBelow(root, sub.split('/')), limits.maxFiles * 100, (dir, name, path, kind) => {
    if (kind !== 'file') {
      if (kind === 'other' && wanted(path)) refuse(path, 'is no regular file')
      return true
    }
    if (!wanted(path)) return true
    if (files.length >= limits.maxFiles) {
      truncated = true
      refuse(path, `more than ${limits.maxFiles} files`)
      return false
    }
    const room = Math.min(limits.maxFileBytes, limits.maxTotalBytes - total)
    const read = readAt(dir, name, room, 'start')
    if (read === undefined) refuse(path, 'cannot be read')
    else if (read.truncated) {
      truncated = true
      refuse(path, 'is over the size limit and was left out')
    } else {
      total += read.data.length
      files.push({ path, data: read.data })
    }
    return true
  })
  return { files, truncated: truncated || !inside, problems }
}

/** What a name takes at the least, be it empty: inodes are disk too. */
const ENTRY_BYTES = 4096

/** What a tree takes on disk, in bytes; stops counting past `maxBytes`, and takes more than `maxEntries` for too much. */
export async function diskUsage(root: string, maxBytes: number, maxEntries = 200_000): Promise<number> {
  let bytes = 0
  const inside = await walk(openDir(root), maxEntries, (dir, name, _path, kind) => {
    try {
      bytes += Math.max(ENTRY_BYTES, kind === 'file' ? lstatSync(at(dir, name)).blocks * 512 : 0)
    } catch {
      // Gone in between.
    }
    return bytes <= maxBytes
  })
  return inside ? bytes : Number.POSITIVE_INFINITY
}

/**
 * Copies a tree that may be hostile into a new folder: folders, regular files and symlinks (as they are, never
 * followed). Sockets, pipes and devices are left out.
 * @returns whether it stayed within `maxBytes`
 */
export async function copyTree(from: string, to: string, maxBytes: number): Promise<boolean> {
  mkdirSync(to, { mode: 0o700 })
  let left = maxBytes
  return await walk(openDir(from), 1_000_000, async (dir, name, path, kind) => {
    const target = join(to, path)
    if (kind === 'dir') mkdirSync(target, { mode: 0o700 })
    else if (kind === 'symlink') symlinkSync(readlinkSync(at(dir, name)), target)
    else if (kind === 'file') left -= await copyFile(dir, name, target, left)
    return left >= 0
  })
}

type EntryKind = 'dir' | 'file' | 'symlink' | 'other'

/** Between two breaths of the main loop. */
const ENTRIES_PER_BREATH = 64

const breath = () => new Promise<void>((resolve) => setImmediate(resolve))

/**
 * Depth first, a folder before what it holds. Closes `top`; nothing to walk where it is undefined.
 * @returns false when `visit` or the cap on entries ended it
 */
async function walk(
  top: number | undefined,
  maxEntries: number,
  visit: (dir: number, name: string, path: string, kind: EntryKind) => boolean | Promise<boolean>,
): Promise<boolean> {
  if (top === undefined) return true
  let entries = 0
  const go = async (dir: number, prefix: string, depth: number): Promise<boolean> => {
    const listing = opendirSync(`/proc/self/fd/${dir}`)
    try {
      for (let entry = listing.readSync(); entry !== null; entry = listing.readSync()) {
        if (++entries > maxEntries) return false
        if (entries % ENTRIES_PER_BREATH === 0) await breath()
        const path = `${prefix}${entry.name}`
        const kind = kindOf(entry)
        const goesOn = visit(dir, entry.name, path, kind)
        if (!(typeof goesOn === 'boolean' ? goesOn : await goesOn)) return false
        if (kind !== 'dir' || depth >= MAX_DEPTH) continue
        const inner = openDir(at(dir, entry.name))
        if (inner !== undefined && !(await descend(inner, `${path}/`, depth + 1))) return false
      }
      return true
    } finally {
      listing.closeSync()
    }
  }
  const descend = async (dir: number, prefix: string, depth: number): Promise<boolean> => {
    try {
      return await go(dir, prefix, depth)
    } finally {
      closeSync(dir)
    }
  }
  return await descend(top, '', 0)
}

function kindOf(entry: Dirent): EntryKind {
  if (entry.isDirectory()) return 'dir'
  if (entry.isFile()) return 'file'
  return entry.isSymbolicLink() ? 'symlink' : 'other'
}

/** `name` in the folder that the descriptor holds, wherever that has been moved to. */
function at(dir: number, name: string): string {
  return `/proc/self/fd/${dir}/${name}`
}

function openDir(path: string): number | undefined {
  try {
    return openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  } catch {
    return undefined
  }
}

function openRegular(dir: number, name: string): number | undefined {
  let fd: number
  try {
    fd = openSync(at(dir, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  } catch {
    return undefined
  }
  if (fstatSync(fd).isFile()) return fd
  closeSync(fd)
  return undefined
}

function readAt(dir: number, name: string, maxBytes: number, from: 'start' | 'end'): { data: Buffer; truncated: boolean } | undefined {
  const fd = openRegular(dir, name)
  if (fd === undefined) return undefined
  try {
    const { size } = fstatSync(fd)
    const start = from === 'end' ? Math.max(0, size - maxBytes) : 0
    // Sparse files lie about nothing but their size: the buffer is what is really asked for.
    const data = Buffer.alloc(Math.max(0, Math.min(size - start, maxBytes)))
    let filled = 0
    while (filled < data.length) {
      const got = readSync(fd, data, filled, data.length - filled, start + filled)
      if (got === 0) break
      filled += got
    }
    return { data: data.subarray(0, filled), truncated: size > maxBytes }
  } finally {
    closeSync(fd)
  }
}

const COPY_CHUNK = 256 * 1024

/** @returns the bytes copied, more than `maxBytes` when it broke off */
async function copyFile(dir: number, name: string, target: string, maxBytes: number): Promise<number> {
  const source = openRegular(dir, name)
  if (source === undefined) return 0
  try {
    const sink = openSync(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, fstatSync(source).mode & 0o777)
    try {
      const chunk = Buffer.alloc(COPY_CHUNK)
      let copied = 0
      for (;;) {
        const got = readSync(source, chunk, 0, chunk.length, copied)
        if (got === 0) return copied
        copied += got
        if (copied > maxBytes) return copied
        for (let offset = 0; offset < got; ) offset += writeSync(sink, chunk, offset, got - offset)
        await breath()
      }
    } finally {
      closeSync(sink)
    }
  } finally {
    closeSync(source)
  }
}
