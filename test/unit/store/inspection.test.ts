/** Going through a whole database is done by a worker on its own connection, and says the same as here. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { describe, expect, it, onTestFinished } from 'vitest'
import { inspect } from '../../../src/store/inspection.ts'
import { writeAudit } from '../../../src/store/money/audit.ts'
import { postEntry } from '../../../src/store/money/ledger.ts'
import type { Store } from '../../../src/store/store.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

/** As the tests' own build of the program laid it. */
const workerPath = fileURLToPath(new URL('../../../dist/inspection-worker.cjs', import.meta.url))

async function filled(): Promise<Store> {
  const store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
  const cause = { type: 'owner', id: 'o1' } as const
  const postings = [
    { account: 'node/equity/funding', amountMsats: -1000n },
    { account: 'node/expense/fee', amountMsats: 1000n },
  ] as const
  await store.write(postEntry({ id: 'e1', cause, at: 1_800_000_000_000, postings }))
  await store.write(writeAudit({ at: 1, kind: 'spend', data: { sats: 1 } }))
  await store.write(writeAudit({ at: 2, kind: 'spend', data: { sats: 2 } }))
  return store
}

describe.each(['a worker', 'the process itself'])('by %s', (by) => {
  const path = () => (by === 'a worker' ? workerPath : '/nowhere/inspection-worker.cjs')

  it('a sound database is called so', async () => {
    expect(existsSync(workerPath)).toBe(true)
    const store = await filled()
    expect(await inspect(store, 'file', path())).toEqual({ damage: [], orphans: 0 })
    expect(await inspect(store, 'ledger', path())).toEqual({ ok: true, problems: [] })
    expect(await inspect(store, 'auditLog', path())).toEqual({ ok: true, rows: 2 })
  })

  it('each fault is found', async () => {
    const store = await filled()
    store.sql("UPDATE audit_log SET data_json = '{}' WHERE id = 1").run()
    store.sql('UPDATE ledger_sums SET amount_msats = 7').run()
    store.sql("UPDATE postings SET amount_msats = 999 WHERE account = 'node/expense/fee'").run()
    expect(await inspect(store, 'auditLog', path())).toMatchObject({ ok: false, row: 1 })
    const { ok, problems } = await inspect(store, 'ledger', path())
    expect(ok).toBe(false)
    for (const words of ['off balance', 'node/expense/fee', 'sums of expense/fee on 2027-01-15'])
      expect(problems.join(' ')).toContain(words)
  })
})

it('a worker that ends tells whoever waits', async () => {
  const dir = tempDir()
  const broken = join(dir, 'inspection-worker.cjs')
  await build({ stdin: { contents: 'process.exit(3)' }, outfile: broken, logLevel: 'silent' })
  await expect(inspect(await filled(), 'file', broken)).rejects.toThrow(/inspection worker ended/)
})
