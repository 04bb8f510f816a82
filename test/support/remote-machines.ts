/**
 * What the recording servers of remote substrates start: the real guest program, as an image of the owner runs it, with the
 * environment that the server was told and nothing else. The folders of a machine lie below one of the test.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, vi } from 'vitest'
import { readFileIfAny, writeFileAtomic } from '../../src/base/files.ts'
import { parseJson } from '../../src/base/json.ts'
import { STATE_DIR, WELCOMES_DIR, WELCOMES_DONE } from '../../src/runtime/contract/paths.ts'
import { killAll } from './kill.ts'
import { PROGRAM } from './rig.ts'
import { tempDir } from './temp.ts'

type Env = Readonly<Record<string, string>>

interface Machine {
  readonly root: string
  readonly env: Env
  guest: ChildProcess
}

/** What a guest says of itself in its status file. */
interface GuestStatus {
  readonly state: string
  readonly details?: { readonly bot_pubkey?: string }
}

export class RemoteMachines {
  readonly #dir = tempDir()
  readonly #machines = new Map<string, Machine>()
  /** Secret keys of the guests of machines that are gone; 64 hex digits. */
  readonly keys: string[] = []

  constructor() {
    onTestFinished(async () => {
      for (const id of this.#machines.keys()) await this.destroy(id)
    })
  }

  /** @param env as the substrate got it */
  boot(id: string, env: Env): void {
    const root = join(this.#dir, id)
    this.#machines.set(id, { root, env, guest: start(root, env) })
  }

  /** As a host does it that went down: what is in memory (/run) is gone, the disk is not. */
  async reboot(id: string): Promise<void> {
    const machine = this.#of(id)
    await this.#halt(machine)
    rmSync(join(machine.root, 'run'), { recursive: true, force: true })
    machine.guest = start(machine.root, machine.env)
  }

  async destroy(id: string): Promise<void> {
    const machine = this.#machines.get(id)
    if (machine === undefined) return
    await this.#halt(machine)
    this.keys.push(...keysBelow(machine.root))
    this.#machines.delete(id)
    rmSync(machine.root, { recursive: true, force: true })
  }

  status(id: string): GuestStatus | undefined {
    const machine = this.#machines.get(id)
    return machine === undefined ? undefined : statusOf(machine)
  }

  /** As a broker hands one over; resolves when the guest has dealt with it. @param name of the file */
  async welcome(id: string, name: string, body: unknown): Promise<void> {
    const dir = stateDir(this.#of(id))
    mkdirSync(join(dir, WELCOMES_DIR), { recursive: true })
    writeFileAtomic(join(dir, WELCOMES_DIR, name), JSON.stringify(body))
    const dealtWith = () => (parseJson(readFileIfAny(join(dir, WELCOMES_DONE)) ?? '[]') ?? []) as string[]
    await vi.waitFor(() => expect(dealtWith()).toContain(name), { timeout: 20_000, interval: 50 })
  }

  #of(id: string): Machine {
    const found = this.#machines.get(id)
    if (found === undefined) throw new Error(`there is no machine ${id}`)
    return found
  }

  async #halt({ guest }: Machine): Promise<void> {
    if (guest.pid === undefined || guest.exitCode !== null || guest.signalCode !== null) return
    const ended = new Promise((resolve) => guest.once('exit', resolve))
    killAll([-guest.pid])
    await ended
  }
}

function start(root: string, env: Env): ChildProcess {
  const [command = '', ...first] = PROGRAM
  const below = (path: string) => join(root, path)
  const moved = {
    STATE_DIR: below(env['STATE_DIR'] ?? STATE_DIR),
    ...(env['PYLON_SESSION_DIR'] === undefined ? {} : { PYLON_SESSION_DIR: below(env['PYLON_SESSION_DIR']) }),
  }
  mkdirSync(moved.STATE_DIR, { recursive: true })
  const image = { PATH: process.env['PATH'] ?? '', HOME: root }
  return spawn(command, [...first, 'guest', '--session'], {
    cwd: root,
    env: { ...image, ...env, ...moved },
    stdio: 'ignore',
    detached: true,
  })
}

function statusOf(machine: Machine): GuestStatus | undefined {
  return parseJson(readFileIfAny(join(stateDir(machine), 'status.json')) ?? '') as GuestStatus | undefined
}

const stateDir = ({ root, env }: Machine): string => join(root, env['STATE_DIR'] ?? STATE_DIR)

/** The secret keys of the guests whose folders lie below `dir`, 64 hex digits each; a volume may be found by more than one way. */
export function keysBelow(dir: string): string[] {
  const names = readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('/bot.key'))
  return [...new Set(names.flatMap((name) => readFileIfAny(join(dir, name))?.trim() ?? []))]
}
