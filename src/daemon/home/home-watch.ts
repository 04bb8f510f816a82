/** Looks after the home of a running node: one that is deleted, moved or replaced ends it; a socket or pid file that went is made again. */
import { statSync } from 'node:fs'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Home } from '../../base/paths.ts'
import type { Scope } from '../../base/scope.ts'
import type { ControlServer } from '../../control/server.ts'
import { readPidFile, writePidFile } from './pidfile.ts'

const LOOK_EVERY_MS = 2000

export interface HomeWatchDeps {
  /** Its own: it ends with what is lost. */
  readonly scope: Scope
  readonly home: Home
  readonly logger: Logger
  readonly server: Pick<ControlServer, 'socketState' | 'listenAgain'>
  /** Called once, with the reason: whatever is written from then on is lost. */
  onLost(reason: string): void
}

/** Looks now and then until its scope ends, or the home is lost. */
export function watchHome(deps: HomeWatchDeps): void {
  const { scope, home, logger } = deps
  const kept = [home.dir, home.database, home.lease].map((path) => ({ path, identity: identityOf(path) }))
  scope.every('look', LOOK_EVERY_MS, async () => {
    const lost = kept.find(({ path, identity }) => identityOf(path) !== identity)
    if (lost !== undefined) {
      scope.end()
      logger.error({ path: lost.path }, 'the home of this node was deleted, moved or replaced while it ran: it ends')
      return deps.onLost(`${lost.path} was taken away`)
    }
    try {
      await repair(deps)
    } catch (error) {
      logger.warn({ error: messageOf(error) }, 'the home could not be repaired; it is tried again')
    }
  })
}

async function repair({ home, logger, server }: HomeWatchDeps): Promise<void> {
  if (server.socketState() === 'gone') {
    await server.listenAgain()
    logger.warn({ socket: home.socket }, 'the control socket was deleted and is there again')
  }
  if (readPidFile(home)?.pid !== process.pid) writePidFile(home)
}

function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    // Not there, or not to be reached any more.
    return undefined
  }
}
