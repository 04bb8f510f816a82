/** Welcomes that the host hands over beside the relays: a file each, in folders that are only read here; what was dealt with is noted. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { messageOf } from '../../base/errors.ts'
import { readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { parseJson } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { parseIdentified } from '../../nostr/nips/nip01.ts'
import { WELCOMES_DONE } from '../../runtime/contract/paths.ts'
import type { Sessions } from '../../session/sessions.ts'

const LOOK_MS = 500
/** In one folder; those past it are not looked at. */
const MAX_FILES = 200

const handed = z.object({ welcome_event_json: z.string() })

export interface WelcomeFolderDeps {
  readonly scope: Scope
  readonly sessions: Pick<Sessions, 'acceptWelcome'>
  readonly logger: Logger
  readonly folders: readonly string[]
  /** Where it is noted what was dealt with. */
  readonly stateDir: string
}

export class WelcomeFolder {
  readonly #deps: WelcomeFolderDeps
  /** In this life: the same again does nothing. */
  readonly #done = new Set<string>()

  constructor(deps: WelcomeFolderDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#deps.scope.every('welcomes', LOOK_MS, () => this.#look())
  }

  async #look(): Promise<void> {
    const before = this.#done.size
    for (const folder of this.#deps.folders) {
      const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.json') && !this.#done.has(name)) : []
      for (const name of names.slice(0, MAX_FILES)) await this.#take(folder, name)
    }
    if (this.#done.size > before) writeFileAtomic(join(this.#deps.stateDir, WELCOMES_DONE), JSON.stringify([...this.#done]), 0o644)
  }

  async #take(folder: string, name: string): Promise<void> {
    const { sessions, logger } = this.#deps
    const parsed = handed.safeParse(parseJson(readFileIfAny(join(folder, name)) ?? ''))
    try {
      if (parsed.success) await sessions.acceptWelcome(parseIdentified(parseJson(parsed.data.welcome_event_json)))
    } catch (error) {
      logger.warn({ error: messageOf(error) }, 'a welcome that the host handed over could not be read')
    }
    this.#done.add(name)
  }
}
