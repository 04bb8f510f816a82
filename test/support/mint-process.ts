/** A mint of others as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'

export interface MintProcess {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  readonly dir: string
  readonly env: Readonly<Record<string, string>>
  /** Where it is to serve. */
  readonly port: number
}

/** Resolves when it serves. @throws with the end of its log */
export async function startMintProcess({ name, command, args, dir, env, port }: MintProcess): Promise<ChildProcess> {
  const log = join(dir, `${name}.log`)
  const out = openSync(log, 'a')
  const child = spawn(command, args, { cwd: dir, env, stdio: ['ignore', out, out] })
  closeSync(out)
  for (let i = 0; i < 300 && child.exitCode === null; i++) {
    const isUp = await fetch(`http://127.0.0.1:${port}/v1/info`).then(
      (response) => response.ok,
      () => false,
    )
    if (isUp) return child
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  child.kill('SIGKILL')
  throw new Error(`${name} did not start:\n${readFileSync(log, 'utf8').slice(-3000)}`)
}

export async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
  await ended
  clearTimeout(timer)
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}
