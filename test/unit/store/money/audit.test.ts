/** The audit log: each row follows the one before, and whoever changes one is found. */
import { expect, it, onTestFinished } from 'vitest'
import { verifyAudit, writeAudit } from '../../../../src/store/money/audit.ts'
import type { Store } from '../../../../src/store/store.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

async function filledLog(): Promise<Store> {
  const store = openStore(`${tempDir()}/a.db`)
  onTestFinished(() => store.close())
  await Promise.all(
    Array.from({ length: 1500 }, (_, i) =>
      store.write(writeAudit({ at: i, kind: 'spend', data: { operation: `o${i}`, amount_sats: BigInt(i) } })),
    ),
  )
  return store
}

it('is whole as it was written, over many pages', async () => {
  expect(await verifyAudit(await filledLog())).toEqual({ ok: true, rows: 1500 })
})

it.each([
  ["UPDATE audit_log SET data_json = replace(data_json, '7', '8') WHERE id = 1208", 1208, 'its content is not what was written'],
  ['DELETE FROM audit_log WHERE id = 700', 701, 'row 700 is missing'],
  ['UPDATE audit_log SET previous = hash WHERE id = 3', 3, 'it does not follow the row before it'],
])('%s is found', async (change, row, problem) => {
  const store = await filledLog()
  store.sql(change).run()
  expect(await verifyAudit(store)).toEqual({ ok: false, row, problem })
})
