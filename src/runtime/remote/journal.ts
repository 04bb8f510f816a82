/** What an adapter must remember of a runtime where its substrate keeps no labels: a small private file for each, written before it acts. */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { PylonError } from '../../base/errors.ts'
import { ensurePrivateDir, readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { type Json, parseJson } from '../../base/json.ts'

export class Journal {
  readonly #dir: string

  /** @param dir of one adapter; made with the first note */
  constructor(dir: string) {
    this.#dir = dir
  }

  put(runtimeId: string, note: Json): void {
    ensurePrivateDir(this.#dir)
    writeFileAtomic(this.#pathOf(runtimeId), JSON.stringify(note))
  }

  get(runtimeId: string): Json | undefined {
    const text = readFileIfAny(this.#pathOf(runtimeId))
    return text === undefined ? undefined : (parseJson(text) as Json | undefined)
  }

  delete(runtimeId: string): void {
    rmSync(this.#pathOf(runtimeId), { force: true })
  }

  entries(): { readonly runtimeId: string; readonly note: Json }[] {
    ensurePrivateDir(this.#dir)
    const ids = readdirSync(this.#dir).flatMap((name) => (name.endsWith('.json') ? [name.slice(0, -'.json'.length)] : []))
    return ids.flatMap((runtimeId) => {
      const note = this.get(runtimeId)
      return note === undefined ? [] : [{ runtimeId, note }]
    })
  }

  #pathOf(runtimeId: string): string {
    if (!/^[A-Za-z0-9-]{1,64}$/.test(runtimeId)) throw new PylonError('internal', `Bad runtime id ${runtimeId}.`)
    return join(this.#dir, `${runtimeId}.json`)
  }
}
