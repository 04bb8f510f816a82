/** Handlers of the routes about the node itself. */
import { isAbsolute } from 'node:path'
import { loadConfig } from '../../base/config.ts'
import { PylonError } from '../../base/errors.ts'
import type { Tasks } from '../../control/calls.ts'
import type { nodeRoutes } from '../../control/contract/node.ts'
import type { Handlers } from '../../control/route.ts'
import { lockFor } from '../backup/backup-lock.ts'
import { writeBackup } from '../backup/write-backup.ts'
import { examine } from '../doctor/doctor.ts'
import type { PylonNode } from '../node.ts'
import { readLog } from '../offline/read-log.ts'
import type { ReadServices } from '../services.ts'
import { statusOf } from '../status.ts'

const DEFAULT_LINES = 100

export function nodeReadHandlers(read: ReadServices): Pick<Handlers<typeof nodeRoutes>, 'doctor'> {
  return { doctor: () => examine(read) }
}

export function nodeHandlers(node: PylonNode, tasks: Tasks): Handlers<typeof nodeRoutes> {
  return {
    status: () => statusOf(node),
    ping: () => ({}),
    shutdown: ({ drain_s }) => {
      node.end(undefined, drain_s === undefined ? undefined : drain_s * 1000)
      return { pid: process.pid }
    },
    restart: ({ mode }) => {
      // A successor that would not start must not cost the node that runs.
      loadConfig(node.home.config)
      node.end({ mode })
      return { pid: process.pid }
    },
    unlock: async ({ passphrase }) => {
      await node.unlock(passphrase)
      return { locked: node.keyring.locked }
    },
    reload: () => node.reload(),
    doctor: () => examine(node, node),
    backup: async ({ path, recipient, passphrase }) => {
      if (!isAbsolute(path)) throw new PylonError('invalid_request', 'path: must be absolute.')
      const { home, network, store } = node
      const lock = lockFor({ recipient, passphrase }, node.config())
      const bytes = await writeBackup({ home, network, store, target: path, lock, nowMs: node.clock.now() })
      return { path, bytes }
    },
    logs: ({ lines, follow }, { signal }) => readLog(node.home.log, lines ?? DEFAULT_LINES, follow === 'true', signal),
    getTask: ({ id, wait }, { signal }) => tasks.get(id, (wait ?? 0) * 1000, signal),
    events: (_input, { signal }) => node.events.listen(signal),
  }
}
