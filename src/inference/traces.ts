/**
 * What a command leaves behind: a scratch folder, and processes that left its group. Both carry a mark that names the node that ran
 * it, so that they end with the command, and at the next start when the node was killed meanwhile.
 */
import { mkdtempSync, readlinkSync } from 'node:fs'
import { readdir, readFile, readlink, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { bootId, identifyProcess, isSameProcess } from '../base/process-identity.ts'

/** In the environment of a command, and so of all that it starts: the name of its scratch folder. */
export const MARK = 'PYLON_RUN'
const PREFIX = 'pylon-exec-'
/** Who forks while it is ended is found at the next look. */
const MAX_LOOKS = 5

/** Process numbers mean something only within one namespace. */
function namespaceOf(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0'
  } catch {
    // No /proc: no namespace is told apart.
    return '0'
  }
}

export function makeScratch(): string {
  const { pid, start_time } = identifyProcess(process.pid)
  return mkdtempSync(join(tmpdir(), `${PREFIX}${namespaceOf()}-${pid}-${start_time ?? 0}-`))
}

/** Whether the node that a mark names has gone. Marks of other namespaces and of no node of ours are left alone. */
function isOrphaned(mark: string): boolean {
  const [, namespace, pid, startTime] = /^pylon-exec-(\d+)-(\d+)-(\d+)-/.exec(mark) ?? []
  if (namespace === undefined || namespace !== namespaceOf() || startTime === '0') return false
  return !isSameProcess({ pid: Number(pid), start_time: startTime ?? null, boot_id: bootId() })
}

/** Ends every process that a command left behind, also those in sessions of their own. Nothing to be done where there is no /proc. */
export async function endStrays(scratch: string): Promise<void> {
  const mark = basename(scratch)
  await endMarked((found) => found === mark)
}

/** What a node that was killed left: its commands and their scratch folders, with what customers sent in them. Call at a start. */
export async function sweepTraces(): Promise<{ processes: number; folders: number }> {
  const processes = await endMarked(isOrphaned)
  // What can't be listed or looked at is not ours to clear.
  const names = await readdir(tmpdir()).catch(() => [] as string[])
  let folders = 0
  for (const name of names.filter((one) => one.startsWith(PREFIX) && isOrphaned(one))) {
    const path = join(tmpdir(), name)
    // Gone meanwhile.
    const found = await stat(path).catch(() => undefined)
    if (found?.uid !== process.getuid?.()) continue
    await rm(path, { recursive: true, force: true, maxRetries: 3 })
    folders++
  }
  return { processes, folders }
}

async function endMarked(isMeant: (mark: string) => boolean): Promise<number> {
  let count = 0
  for (let look = 0; look < MAX_LOOKS; look++) {
    const pids = await findMarked(isMeant)
    if (pids.length === 0) return count
    if (look === 0) count = pids.length
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It has ended by itself.
      }
    }
  }
  return count
}

async function findMarked(isMeant: (mark: string) => boolean): Promise<number[]> {
  // No /proc: nothing is found.
  const names = await readdir('/proc').catch(() => [] as string[])
  const pids = names.filter((name) => /^\d+$/.test(name)).map(Number)
  const marks = await Promise.all(pids.map(async (pid) => ({ pid, mark: await markOf(pid) })))
  return marks.filter(({ pid, mark }) => pid !== process.pid && mark !== undefined && isMeant(mark)).map(({ pid }) => pid)
}

/** By its environment, or by its folder, which also who cleared that stands in. A zombie has neither. */
async function markOf(pid: number): Promise<string | undefined> {
  // Of another user, or ended by now.
  const folder = await readlink(`/proc/${pid}/cwd`).catch(() => '')
  const named = folder.split('/').find((part) => part.startsWith(PREFIX))
  if (named !== undefined) return named.replace(/ \(deleted\)$/, '')
  const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '')
  const at = environment.startsWith(`${MARK}=`) ? 0 : environment.indexOf(`\0${MARK}=`) + 1
  if (at === 0 && !environment.startsWith(`${MARK}=`)) return undefined
  return environment.slice(at + MARK.length + 1).split('\0')[0]
}
