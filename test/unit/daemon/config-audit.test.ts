/** Changes of the configuration that touch money are in the audit log, each once. */
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { DEFAULT_CONFIG, parseConfig } from '../../../src/base/config.ts'
import { auditConfig } from '../../../src/daemon/config-audit.ts'
import { auditReadHandlers } from '../../../src/daemon/routes/audit.ts'
import { verifyAudit } from '../../../src/store/money/audit.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

it('what was set, changed and unset since it was seen last, once each, and nothing else', async () => {
  const store = openStore(join(tempDir(), 'pylon.db'))
  const logged = () =>
    (auditReadHandlers({ store }).listAudit({ limit: 10 }, {} as never) as { rows: { data: unknown }[] }).rows.map(({ data }) => data)
  await auditConfig(store, DEFAULT_CONFIG, 1)
  expect(logged()).toEqual([])
  const set = parseConfig('[wallet.policy]\nper_day_sats = 500\ndeny = ["evil.example"]\n[node]\nname = "other"\n')
  await auditConfig(store, set, 2)
  await auditConfig(store, set, 3)
  expect(logged()).toEqual([
    { key: 'wallet.policy.deny', from: [], to: ['evil.example'] },
    { key: 'wallet.policy.per_day_sats', from: 0, to: 500 },
  ])
  await auditConfig(store, DEFAULT_CONFIG, 4)
  expect(logged().slice(0, 2)).toEqual([
    { key: 'wallet.policy.deny', from: ['evil.example'], to: [] },
    { key: 'wallet.policy.per_day_sats', from: 500, to: 0 },
  ])
  expect(await verifyAudit(store)).toEqual({ ok: true, rows: 4 })
  store.close()
})
