/** The ports of a sandbox: chosen once, kept in ports.json, so that its URLs stay what they were. */
import { join } from 'node:path'
import { z } from 'zod'
import { readFileIfAny, writeFileAtomic } from '../base/files.ts'
import { parseJson } from '../base/json.ts'

const port = z.int().min(1).max(65_535)
const portsSchema = z.object({ relay: port, mint: port, lnurl: port })
export type Ports = z.infer<typeof portsSchema>

/** The stored ports, or undefined the first time (or when the file is no longer readable as such). */
export function readPorts(dir: string): Ports | undefined {
  const text = readFileIfAny(join(dir, 'ports.json'))
  const parsed = portsSchema.safeParse(text === undefined ? undefined : parseJson(text))
  return parsed.success ? parsed.data : undefined
}

export function writePorts(dir: string, ports: Ports): void {
  writeFileAtomic(join(dir, 'ports.json'), `${JSON.stringify(ports)}\n`)
}
