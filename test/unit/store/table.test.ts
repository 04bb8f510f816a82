import Sqlite from 'better-sqlite3'
import { beforeEach, expect, it } from 'vitest'
import { type Sql, sqlOver } from '../../../src/store/commands.ts'
import { column, type RowOf, Steps, Table } from '../../../src/store/table.ts'

const COLUMNS = {
  id: column.text(),
  state: column.text<'open' | 'done'>(),
  owner: column.group({ kind: column.text('owner_kind'), pubkey: column.text() }),
  amountSats: column.amount(),
  isLate: column.flag(),
  plan: column.json<readonly string[]>('plan_json'),
  error: column.orNull(column.group({ code: column.text('error_code'), message: column.text('error_message') })),
  doneAt: column.orNull(column.int()),
}
type Columns = RowOf<typeof COLUMNS>
type Thing = Columns & ({ readonly state: 'open'; readonly doneAt: null } | { readonly state: 'done'; readonly doneAt: number })
const things = new Table('things', COLUMNS, (row): row is Thing => (row.state === 'open') === (row.doneAt === null))

const OPEN: Thing = {
  ...{ id: 'a', state: 'open', owner: { kind: 'node', pubkey: 'k' }, amountSats: 2n ** 53n - 1n, isLate: true, plan: ['x'] },
  ...{ error: { code: 'c', message: 'm' }, doneAt: null },
}

let sql: Sql
beforeEach(() => {
  const db = new Sqlite(':memory:')
  db.defaultSafeIntegers(true)
  db.exec(`CREATE TABLE things (id TEXT PRIMARY KEY, state TEXT NOT NULL, owner_kind TEXT NOT NULL, pubkey TEXT NOT NULL, amount_sats INTEGER NOT NULL,
    is_late INTEGER NOT NULL DEFAULT 0, plan_json TEXT NOT NULL, error_code TEXT, error_message TEXT, done_at INTEGER) STRICT;
    CREATE TABLE steps (thing TEXT NOT NULL, from_state TEXT, to_state TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL) STRICT`)
  sql = sqlOver(db)
})

it('gives back what was put in, of every kind of field', () => {
  expect(things.insert(sql, OPEN)).toBe(true)
  expect(things.get(sql, { id: 'a' })).toEqual(OPEN)
  expect(things.get(sql, { owner: OPEN.owner, doneAt: null })).toEqual(OPEN)
  expect(things.get(sql, { id: 'b' })).toBeUndefined()
  expect(things.insert(sql, OPEN, 'ON CONFLICT DO NOTHING')).toBe(false)
})

it('leaves alone what is undefined and clears what is null, where the row is as it should be', () => {
  things.insert(sql, OPEN)
  expect(things.patch(sql, { id: 'a', state: 'done' }, { isLate: false })).toBe(false)
  expect(things.patch(sql, { id: 'a', state: 'open' }, { state: 'done', doneAt: 5, error: null, plan: undefined })).toBe(true)
  expect(things.all(sql, 'WHERE done_at > ? ORDER BY id', 4n)).toEqual([{ ...OPEN, state: 'done', doneAt: 5, error: null }])
})

it('refuses a row that is not as its state says, and leaves out what it has no field for', () => {
  things.insert(sql, { ...OPEN, state: 'done' })
  expect(() => things.get(sql, { id: 'a' })).toThrow(/not as its state says/)
  expect(things.insert(sql, { ...OPEN, ...{ id: 'b', more: 1 } })).toBe(true)
  expect(things.get(sql, { id: 'b' })).toEqual({ ...OPEN, id: 'b' })
})

it('takes the steps that there are, and no other', () => {
  const steps = new Steps<'open' | 'done'>('steps', 'thing', { open: ['done'], done: [] })
  const [made, end] = [
    { reason: 'made', at: 1 },
    { reason: 'ended', at: 2 },
  ]
  steps.begin(sql, 'a', { to: 'open', ...made })
  steps.take(sql, 'a', { from: 'open', to: 'done', ...end }, () => true)
  const never = () => expect.unreachable('nothing is written')
  expect(() => steps.take(sql, 'a', { from: 'done', to: 'open', ...end }, never)).toThrow(expect.objectContaining({ code: 'internal' }))
  const moved = () => steps.take(sql, 'a', { from: 'open', to: 'done', ...end }, () => false)
  expect(moved).toThrow(expect.objectContaining({ code: 'conflict' }))
  expect(sql('SELECT * FROM steps').all()).toEqual([
    { thing: 'a', from_state: null, to_state: 'open', reason: 'made', at: 1n },
    { thing: 'a', from_state: 'open', to_state: 'done', reason: 'ended', at: 2n },
  ])
})
