/** Starts a guest of the local substrate: its read-only folder, its enclosure, its first process. */
import { closeSync, openSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { messageOf, PylonError } from '../../base/errors.ts'
import { ensurePrivateDir, writeFileAtomic } from '../../base/files.ts'
import { identifyProcess } from '../../base/process-identity.ts'
import { spawnProcess } from '../../base/processes.ts'
import { removeContained } from '../contained-files.ts'
import type { GuestLaunchInput } from '../contract/launch.ts'
import { DOOR_DIR, LAUNCH_FILE, PROMPT_SOCKET } from '../contract/paths.ts'
import { withStateDir } from '../contract/spec.ts'
import { guestScript } from '../guest-script.ts'
import { relativeToState } from '../outputs.ts'
import type { Bubblewrap } from './bubblewrap.ts'
import { type GroupHome, joinGroup, makeGroup } from './cgroups.ts'
import {
  bubblewrapArgs,
  type Enclosed,
  execCommand,
  GROUP,
  type GuestProgram,
  guestCommand,
  MAX_PROCESSES,
  memoryMibOf,
  PASSWD,
} from './enclosure.ts'
import type { LocalVolumes } from './local-volumes.ts'
import { MARK_VARIABLE } from './marked-processes.ts'
import { bindMounts, linkMounts } from './mounts.ts'
import { type LocalLayout, type LocalRecord, writeRecord } from './record.ts'

export interface LauncherOptions {
  readonly guest: GuestProgram
  readonly volumes: LocalVolumes
  readonly snapshotRoots: readonly string[]
  readonly bubblewrap: () => Promise<Bubblewrap>
  readonly groupHome: GroupHome | undefined
}

/** A command that somebody waits for ends with its bubblewrap, when its time is over; a guest outlives the node. */
const WITH_PARENT = ['--die-with-parent'] as const

/** What to run and in which surroundings. */
export interface Surroundings {
  readonly argv: readonly string[]
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
}

export class LocalLauncher {
  readonly #options: LauncherOptions

  constructor(options: LauncherOptions) {
    this.#options = options
  }

  /**
   * Starts the guest afresh: what it said in an earlier life is gone before. The record holds its process when this returns.
   * @throws runtime_failed, spec_mount_refused
   */
  async start(layout: LocalLayout, record: LocalRecord): Promise<void> {
    const { status_path, result_path } = record.spec.paths
    for (const path of [status_path, result_path]) removeContained(layout.state, relativeToState(record.spec.paths, path))
    removeContained(layout.state, PROMPT_SOCKET)
    this.#group(layout, record)
    const enclosed = this.#enclose(layout, record)
    writeBoot(layout, record)
    const { argv, cwd, env } = await this.#surroundings(enclosed, record, guestCommand(enclosed, record.isolated))
    const log = openSync(join(layout.dir, 'host.log'), 'w', 0o600)
    try {
      const child = spawnProcess(argv, { cwd, env, detached: true, stdio: ['ignore', log, log] })
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve)
        child.once('error', reject)
      })
      child.unref()
      record.process = identifyProcess(child.pid ?? 0)
      record.ended = null
      writeRecord(layout, record)
    } catch (error) {
      throw new PylonError('runtime_failed', `The guest does not start: ${messageOf(error)}.`, { cause: error })
    } finally {
      closeSync(log)
    }
  }

  /** A command in an enclosure of its own over the same files. @throws runtime_failed */
  async beside(layout: LocalLayout, record: LocalRecord, command: string): Promise<Surroundings> {
    this.#group(layout, record)
    const enclosed = this.#enclose(layout, record)
    return await this.#surroundings(enclosed, record, execCommand(enclosed, record.isolated, command), WITH_PARENT)
  }

  /** Written down before anything is in it, so that a teardown finds it. @throws runtime_failed */
  #group(layout: LocalLayout, record: LocalRecord): void {
    const home = this.#options.groupHome
    const limits = { memoryMib: memoryMibOf(record.spec), processes: MAX_PROCESSES, vcpus: record.spec.resources.vcpu_count }
    const dirs = home === undefined ? [] : makeGroup(home, record.runtime_id, limits)
    if (dirs.join() === record.group_dirs.join()) return
    record.group_dirs = dirs
    writeRecord(layout, record)
  }

  #enclose(layout: LocalLayout, record: LocalRecord): Enclosed {
    const doorSocket = record.session?.door_socket ?? undefined
    return {
      layout,
      spec: record.spec,
      bindings: bindMounts(record.spec, record.owner_pubkey, layout, this.#options.volumes, this.#options.snapshotRoots),
      network: record.network,
      doorDir: doorSocket === undefined ? undefined : dirname(doorSocket),
      guest: this.#options.guest,
      isGrouped: record.group_dirs.length > 0,
      cpuSeconds: record.timeout_secs === null ? null : record.timeout_secs + 60,
    }
  }

  /** @throws runtime_failed rather than to run without the isolation that it was provisioned with */
  async #surroundings(
    enclosed: Enclosed,
    record: LocalRecord,
    inner: readonly string[],
    options: readonly string[] = [],
  ): Promise<Surroundings> {
    const { layout } = enclosed
    // Bare: nothing of this process's environment but where programs are.
    const env: Record<string, string> = { LANG: 'C.UTF-8', [MARK_VARIABLE]: record.mark }
    if (!record.isolated) {
      const root = linkMounts(layout, enclosed.bindings)
      return {
        argv: joinGroup(record.group_dirs, inner),
        cwd: layout.work,
        env: { ...env, PATH: process.env['PATH'] ?? '/usr/bin:/bin', HOME: layout.work, PYLON_ROOT: root },
      }
    }
    const found = await this.#options.bubblewrap()
    if (found.path === null) {
      throw new PylonError('runtime_failed', `The runtime was isolated and cannot be any more: ${found.reason}. ${found.nextStep}`)
    }
    const argv = joinGroup(record.group_dirs, [found.path, ...bubblewrapArgs(enclosed, inner, [...found.options, ...options])])
    // Where the node lies is no guest's business: a shell on the way would note it as PWD.
    return { argv, cwd: '/', env: { ...env, PATH: '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' } }
  }
}

/** The read-only folder of the guest. Its launch file has our secrets, so this folder is never the guest's to write. */
function writeBoot(layout: LocalLayout, record: LocalRecord): void {
  ensurePrivateDir(layout.boot)
  const launch: GuestLaunchInput = {
    schema_version: 1,
    spec: withStateDir(record.spec, record.isolated ? record.spec.paths.state_dir : layout.state),
    protocol: record.protocol,
    env: record.env,
    ...(record.timeout_secs === null ? {} : { timeout_secs: record.timeout_secs }),
    ...sessionLaunch(record),
    ...(record.protocol === null ? {} : { prompt: { listen: { unix: PROMPT_SOCKET }, ticket_key: record.ticket_key } }),
  }
  rmSync(join(layout.boot, LAUNCH_FILE), { force: true })
  writeFileAtomic(join(layout.boot, LAUNCH_FILE), JSON.stringify(launch))
  writeFileAtomic(join(layout.boot, 'guest.sh'), guestScript(), 0o755)
  writeFileAtomic(join(layout.boot, 'passwd'), PASSWD, 0o644)
  writeFileAtomic(join(layout.boot, 'group'), GROUP, 0o644)
}

function sessionLaunch({ session, owner_pubkey, isolated }: LocalRecord): Pick<GuestLaunchInput, 'session'> {
  if (session === null) return {}
  const { token, relays, door_socket: socket } = session
  const door = socket === null ? {} : { door: { unix: isolated ? `${DOOR_DIR}/${basename(socket)}` : socket } }
  return { session: { owner_pubkey, relays, token, ...door } }
}
