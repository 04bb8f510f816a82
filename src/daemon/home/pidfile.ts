/** pylon.pid: information about the daemon of a home, never the proof that it runs (that is the lease). */
import { rmSync } from 'node:fs'
import { z } from 'zod'
import { readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'
import type { Home } from '../../base/paths.ts'
import { identifyProcess } from '../../base/process-identity.ts'
import { VERSION } from '../../base/version.ts'

const schema = z.object({
  pid: z.int().min(1),
  start_time: z.string().nullable(),
  boot_id: z.string().nullable(),
  version: z.string(),
  socket: z.string(),
})

export type PidRecord = z.infer<typeof schema>

export function writePidFile(home: Home): void {
  const record: PidRecord = { ...identifyProcess(process.pid), version: VERSION, socket: home.socket }
  writeFileAtomic(home.pidFile, `${JSON.stringify(record)}\n`)
}

/** The record, or undefined when there is none that can be read. */
export function readPidFile(home: Home): PidRecord | undefined {
  const parsed = schema.safeParse(parseJson(readFileIfAny(home.pidFile) ?? ''))
  return parsed.success ? parsed.data : undefined
}

/** Ours alone: where the home was replaced it is the successor's. */
export function removePidFile(home: Home): void {
  if (readPidFile(home)?.pid === process.pid) rmSync(home.pidFile, { force: true })
}
