/** What an adapter must remember of a runtime where its substrate keeps no labels: a small private file for each, written before it acts. */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { PylonError } from '../../base/errors.ts'
import { ensurePrivateDir, readFileIfAny, writeFileAtomic } from '../../base/files.ts'
import { type Json, parseJson } from '../../base/json.ts'

export interface Journal {
  put(runtimeId: string, note: Json): void
  get(runtimeId: string): Json | undefined
  delete(runtimeId: string): void
  entries(): readonly { readonly runtimeId: string; readonly note: Json }[]
}

/** @param dir of one adapter; made with the first note */
export function createJournal(dir: string): Journal {
  const pathOf = (runtimeId: string): string => {
    if (!/^[A-Za-z0-9-]{1,64}$/.test(runtimeId)) throw new PylonError('internal', `Bad runtime id ${runtimeId}.`)
    return join(dir, `${runtimeId}.json`)
  }
  const get = (runtimeId: string): Json | undefined => {
    const text = readFileIfAny(pathOf(runtimeId))
    return text === undefined ? undefined : (parseJson(text) as Json | undefined)
  }
  return {
    get,
    put(runtimeId, note) {
      ensurePrivateDir(dir)
      writeFileAtomic(pathOf(runtimeId), JSON.stringify(note))
    },
    delete: (runtimeId) => rmSync(pathOf(runtimeId), { force: true }),
    entries() {
      ensurePrivateDir(dir)
      const ids = readdirSync(dir).flatMap((name) => (name.endsWith('.json') ? [name.slice(0, -'.json'.length)] : []))
      return ids.flatMap((runtimeId) => {
        const note = get(runtimeId)
        return note === undefined ? [] : [{ runtimeId, note }]
      })
    },
  }
}
