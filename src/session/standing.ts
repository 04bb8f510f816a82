/** One group as it stands in the database, opened; and what of it changes with its state. */

import type { Command } from '../store/commands.ts'
import { type EpochRow, epochsOf, type GroupRow, getGroup, patchGroup, stepEpoch } from '../store/sessions/groups.ts'
import type { Store } from '../store/store.ts'
import { EPOCHS_KEPT } from './mls/context.ts'
import { decodeState, encodeState, epochKeysOf, epochOf, groupDataOf, type MlsState, membersOf, mlsIdOf } from './mls/group.ts'
import type { Group } from './types.ts'
import type { EpochKeys } from './wire/group-event.ts'

export interface Standing {
  readonly row: GroupRow
  readonly mls: MlsState
  /** The newest first. */
  readonly keys: readonly EpochKeys[]
}

export function loadStanding(store: Store, owner: string, id: string): Standing | undefined {
  const row = getGroup(store, owner, id)
  if (row === undefined) return undefined
  const keys = epochsOf(store, owner, id).map(keysOfRow)
  return { row, mls: decodeState(row.mlsState), keys }
}

const keysOfRow = ({ epoch, eventKey, legacySecret }: EpochRow): EpochKeys => ({ epoch, key: eventKey, legacySecret })

export async function epochRow(owner: string, groupId: string, mls: MlsState): Promise<EpochRow> {
  const { epoch, key, legacySecret } = await epochKeysOf(mls)
  return { owner, groupId, epoch, eventKey: key, legacySecret, leftState: null, leftBy: null, leftAt: null }
}

/** What of a row follows from the state of its group. @throws session_refused */
export function shownOf(mls: MlsState): Pick<GroupRow, 'name' | 'admins' | 'relays' | 'members' | 'epoch' | 'mlsState'> {
  const { name, admins, relays } = groupDataOf(mls)
  return { name, admins, relays, members: membersOf(mls), epoch: epochOf(mls), mlsState: encodeState(mls) }
}

/** The row of a group that begins for this key in that state. */
export function rowOf(
  mls: MlsState,
  of: Pick<GroupRow, 'owner' | 'id' | 'orderKey' | 'joinedEpoch' | 'welcomes' | 'nextSaid' | 'updateDue' | 'createdAt'>,
): GroupRow {
  return { ...shownOf(mls), ...of, mlsId: mlsIdOf(mls), state: 'active', pending: null, pendingState: null, unheard: null }
}

export interface Changed {
  readonly standing: Standing
  readonly commands: readonly Command<unknown>[]
}

/** Within its epoch. */
export function changed(standing: Standing, change: Partial<GroupRow>, mls = standing.mls): Changed {
  const { row } = standing
  const whole = mls === standing.mls ? change : { ...change, mlsState: encodeState(mls) }
  return {
    standing: { ...standing, mls, row: { ...row, ...whole } },
    commands: [patchGroup({ owner: row.owner, id: row.id, change: whole })],
  }
}

export interface EpochChange {
  /** The epoch that is left, as it is. */
  readonly before: MlsState
  readonly after: MlsState
  readonly by: { readonly id: string; readonly created_at: number }
  readonly change?: Partial<GroupRow>
}

/** Into the next epoch, from the one that stands or from a former one. */
export async function stepped(standing: Standing, { before, after, by, change = {} }: EpochChange): Promise<Changed> {
  const { owner, id } = standing.row
  const whole = { ...shownOf(after), ...change }
  const next = await epochRow(owner, id, after)
  const left = { epoch: epochOf(before), state: encodeState(before), by: by.id, at: by.created_at }
  const former = standing.keys.filter(({ epoch }) => epoch <= left.epoch && epoch >= next.epoch - EPOCHS_KEPT)
  return {
    standing: { row: { ...standing.row, ...whole }, mls: after, keys: [keysOfRow(next), ...former] },
    commands: [patchGroup({ owner, id, change: whole }), stepEpoch({ owner, groupId: id, left, next, keep: EPOCHS_KEPT })],
  }
}

/** As others see it. */
export function groupOfRow({ id, mlsId, name, members, admins, relays, epoch, state, createdAt }: GroupRow): Group {
  return { id, mlsId, name, members, admins, relays, epoch, state, createdAt }
}
