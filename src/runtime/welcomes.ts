/** Welcomes handed to a guest beside the relays: what is written, and what comes of it. Pure but for the waiting. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { PylonError } from '../base/errors.ts'
import { type Json, parseJson } from '../base/json.ts'
import type { Scope } from '../base/scope.ts'
import type { Welcome } from './adapter.ts'

/** How long a guest may take to deal with one. */
const WAIT_MS = 10_000
const LOOK_MS = 200
export const MAX_DONE_BYTES = 64 * 1024

const done = z.array(z.string().max(100)).max(1000)

/** @throws invalid_request where there is no welcome in it */
export function welcomeFile({ groupId, wrapperEventIdHex, welcomeEventJson }: Welcome): { name: string; text: string } {
  if (welcomeEventJson === undefined)
    throw new PylonError('invalid_request', 'welcome_event_json: the welcome itself (kind 444, unsigned) is needed here.', {
      details: { field: 'welcome_event_json' },
    })
  const digest = createHash('sha256').update(welcomeEventJson).digest('hex').slice(0, 32)
  const welcome = { group_id: groupId, wrapper_event_id_hex: wrapperEventIdHex ?? null, welcome_event_json: welcomeEventJson }
  return { name: `${digest}.json`, text: JSON.stringify(welcome) }
}

/** @param readDone what the guest says of those that it has dealt with; undefined: nothing yet */
export async function welcomeAnswer(
  scope: Scope,
  { groupId, wrapperEventIdHex }: Welcome,
  name: string,
  readDone: () => string | undefined | Promise<string | undefined>,
): Promise<Json> {
  const about = { group_id: groupId, ...(wrapperEventIdHex === undefined ? {} : { wrapper_event_id_hex: wrapperEventIdHex }) }
  for (let waitedMs = 0; waitedMs < WAIT_MS; waitedMs += LOOK_MS) {
    const names = done.safeParse(parseJson((await readDone()) ?? '')).data ?? []
    if (names.includes(name)) return { processed: true, ...about, processed_welcomes: names.length }
    await scope.sleep(LOOK_MS)
  }
  return { processed: false, ...about, reason: 'the welcome was handed over; the guest has not dealt with it yet' }
}
