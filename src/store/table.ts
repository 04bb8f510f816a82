/** A table, described once: its columns with what is stored in them. Rows are inserted, read and patched by that one list. */
import { PylonError } from '../base/errors.ts'
import { stringify } from '../base/json.ts'
import { canStep, type StepsOf } from '../base/states.ts'
import type { Row, Sql } from './commands.ts'
import { amount, bytes, int, json, type Params, text } from './row.ts'

type SqlValue = string | bigint | Uint8Array | null

/** How one field of a row is stored, in a column or a few. */
interface Field<T> {
  readonly columns: readonly string[]
  decode(row: Row): T
  encode(value: T): SqlValue[]
}

/** A field as it is described: the name of its column follows from its own, unless another is given. */
type Description<T> = (name: string) => Field<T>
type Descriptions = Readonly<Record<string, Description<unknown>>>
type ValueOf<D> = D extends Description<infer T> ? T : never

/** What one row holds. */
export type RowOf<D extends Descriptions> = { readonly [K in keyof D]: ValueOf<D[K]> }
/** What one row of a table holds. */
export type RowOfTable<T extends { decode(row: Row): unknown }> = ReturnType<T['decode']>
/** Some of it; what is undefined is as if left out. */
type Some<D extends Descriptions> = { readonly [K in keyof D]?: ValueOf<D[K]> | undefined }

const columnOf = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

function one<T>(given: string | undefined, decode: (row: Row, column: string) => T, encode: (value: T) => SqlValue): Description<T> {
  return (name) => {
    const column = given ?? columnOf(name)
    return { columns: [column], decode: (row) => decode(row, column), encode: (value) => [encode(value)] }
  }
}

/** Descriptions of fields. @param name of the column, where it is not the field's in snake case */
export const column = {
  text: <T extends string = string>(name?: string) =>
    one<T>(
      name,
      (row, at) => text(row, at) as T,
      (value) => value,
    ),
  /** A number that is no amount: a time, a count, a kind. */
  int: (name?: string) => one<number>(name, int, (value) => BigInt(Math.floor(value))),
  amount: <T extends bigint = bigint>(name?: string) =>
    one<T>(
      name,
      (row, at) => amount(row, at) as bigint as T,
      (value) => value,
    ),
  flag: (name?: string) =>
    one<boolean>(
      name,
      (row, at) => int(row, at) === 1,
      (value) => (value ? 1n : 0n),
    ),
  bytes: (name?: string) => one<Uint8Array>(name, bytes, (value) => value),
  json: <T>(name?: string) => one<T>(name, (row, at) => json<T>(row, at), stringify),
  /** A field of several columns. */
  group:
    <D extends Descriptions>(parts: D): Description<RowOf<D>> =>
    () =>
      fieldOf(parts),
  orNull:
    <T>(description: Description<T>): Description<T | null> =>
    (name) => {
      const field = description(name)
      const [first = ''] = field.columns
      return {
        columns: field.columns,
        decode: (row) => (row[first] === null ? null : field.decode(row)),
        encode: (value) => (value === null ? field.columns.map(() => null) : field.encode(value)),
      }
    },
}

/** All fields of a description as one. */
function fieldOf<D extends Descriptions>(parts: D): Field<RowOf<D>> {
  const fields = fieldsOf(parts)
  return {
    columns: fields.flatMap(([, field]) => field.columns),
    decode: (row) => Object.fromEntries(fields.map(([name, field]) => [name, field.decode(row)])) as RowOf<D>,
    encode: (value) => fields.flatMap(([name, field]) => field.encode(value[name])),
  }
}

function fieldsOf<D extends Descriptions>(parts: D): (readonly [keyof D & string, Field<ValueOf<D[keyof D]>>])[] {
  return Object.keys(parts).map((name) => [name, (parts[name] as Description<ValueOf<D[keyof D]>>)(name)])
}

/** What statements give that are not a whole row of one table, by the names of their columns. */
export class Selection<D extends Descriptions> {
  readonly #whole: Field<RowOf<D>>

  constructor(parts: D) {
    this.#whole = fieldOf(parts)
  }

  decode(row: Row): RowOf<D> {
    return this.#whole.decode(row)
  }

  all(sql: Sql, statement: string, ...params: Params): RowOf<D>[] {
    return sql(statement)
      .all(...params)
      .map((row) => this.#whole.decode(row))
  }

  get(sql: Sql, statement: string, ...params: Params): RowOf<D> | undefined {
    const row = sql(statement).get(...params)
    return row === undefined ? undefined : this.#whole.decode(row)
  }
}

/** A table whose rows are all of one shape. */
export const table = <D extends Descriptions>(name: string, parts: D): Table<D> => new Table(name, parts, (_row): _row is RowOf<D> => true)

export class Table<D extends Descriptions, R extends RowOf<D> = RowOf<D>> {
  readonly #name: string
  readonly #whole: Field<RowOf<D>>
  readonly #fields: ReadonlyMap<string, Field<ValueOf<D[keyof D]>>>
  readonly #fits: (row: RowOf<D>) => row is R

  /** @param fits whether all is there that the state of a row says is there */
  constructor(name: string, parts: D, fits: (row: RowOf<D>) => row is R) {
    this.#name = name
    this.#whole = fieldOf(parts)
    this.#fields = new Map(fieldsOf(parts))
    this.#fits = fits
  }

  /** @throws internal for a row that is not as its state says */
  decode(row: Row): R {
    const decoded = this.#whole.decode(row)
    if (!this.#fits(decoded)) throw new PylonError('internal', `A row of ${this.#name} is not as its state says.`)
    return decoded
  }

  /** The row that is named so, by its key or whatever is unique. */
  get(sql: Sql, by: Some<D>): R | undefined {
    const { columns, values } = this.#encode(by)
    const row = sql(`SELECT * FROM ${this.#name} WHERE ${columns.map((name) => `${name} IS ?`).join(' AND ')}`).get(...values)
    return row === undefined ? undefined : this.decode(row)
  }

  /** @param rest of the statement, after the table: WHERE, ORDER BY, LIMIT */
  all(sql: Sql, rest: string, ...params: Params): R[] {
    return sql(`SELECT * FROM ${this.#name} ${rest}`)
      .all(...params)
      .map((row) => this.decode(row))
  }

  /** What is left out is as the table has it by default. @param onConflict e.g. `ON CONFLICT DO NOTHING` @returns whether there is a new row */
  insert(sql: Sql, row: Some<D>, onConflict = ''): boolean {
    const { columns, values } = this.#encode(row)
    const places = columns.map(() => '?').join(', ')
    return sql(`INSERT INTO ${this.#name} (${columns.join(', ')}) VALUES (${places}) ${onConflict}`).run(...values).changes > 0
  }

  /** Sets what is given where the row is as `by` says; what is undefined stays. @returns whether there was such a row */
  patch(sql: Sql, by: Some<D>, change: Some<D>): boolean {
    const [set, where] = [this.#encode(change), this.#encode(by)]
    if (set.columns.length === 0) return this.get(sql, by) !== undefined
    const sets = set.columns.map((name) => `${name} = ?`).join(', ')
    const wheres = where.columns.map((name) => `${name} IS ?`).join(' AND ')
    return sql(`UPDATE ${this.#name} SET ${sets} WHERE ${wheres}`).run(...set.values, ...where.values).changes > 0
  }

  #encode(some: Some<D>): { columns: string[]; values: SqlValue[] } {
    const columns: string[] = []
    const values: SqlValue[] = []
    for (const [name, value] of Object.entries(some)) {
      const field = this.#fields.get(name)
      // What is given may know more than the table: a misspelt field is seen by its type.
      if (value === undefined || field === undefined) continue
      columns.push(...field.columns)
      values.push(...field.encode(value as ValueOf<D[keyof D]>))
    }
    return { columns, values }
  }
}

/** A step as it is stored; what began comes from nothing. */
export interface StepTaken<S> {
  readonly from: S | null
  readonly to: S
  readonly reason: string
  readonly at: number
}
type Step<S> = StepTaken<S> & { readonly from: S }
/** A step that somebody asks for, with what it sets beside the state. */
export type StepOf<S, Patch> = Step<S> & { readonly id: string; readonly patch?: Patch | undefined }

/** The steps of the things in a table, each with its reason: the only place where they are taken. */
export class Steps<S extends string> {
  readonly #steps: StepsOf<S>
  readonly #ofOwner: string
  readonly #taken

  /** @param owner the column that names whose step it is; @param what the steps are between: states, or a status */
  constructor(name: string, owner: string, steps: StepsOf<S>, what: 'state' | 'status' = 'state') {
    this.#steps = steps
    this.#ofOwner = `WHERE ${owner} = ? ORDER BY rowid DESC LIMIT ?`
    const [from, to] = [column.orNull(column.text<S>(`from_${what}`)), column.text<S>(`to_${what}`)]
    this.#taken = table(name, { owner: column.text(owner), from, to, reason: column.text(), at: column.int() })
  }

  /** How something began, and why. @param nothing what its table has for no state */
  begin(sql: Sql, owner: string, step: Omit<StepTaken<S>, 'from'>, nothing: '' | null = null): void {
    this.#taken.insert(sql, { owner, from: nothing as S | null, ...step })
  }

  /** @param write what else the step changes: false where its owner is not in `from`. @throws internal for a step that there is not, conflict */
  take(sql: Sql, owner: string, { from, to, reason, at }: Step<S>, write: () => boolean): void {
    if (!canStep(this.#steps, from, to)) throw new PylonError('internal', `Nothing goes from ${from} to ${to} (${owner}).`)
    if (!write()) throw new PylonError('conflict', `${owner} is not ${from} any more, it cannot become ${to}.`)
    this.#taken.insert(sql, { owner, from, to, reason, at })
  }

  /** Newest first. */
  newest(sql: Sql, owner: string, limit = -1): StepTaken<S>[] {
    return this.#taken.all(sql, this.#ofOwner, owner, BigInt(limit)).map(({ owner: _owner, ...step }) => step)
  }

  /** How often it came to this. */
  count(sql: Sql, owner: string, to: S): number {
    return this.newest(sql, owner).filter((step) => step.to === to).length
  }
}
