/** Changes of the configuration that touch money stand in the audit log, also those made by hand while the node was stopped. */
import { type Config, DEFAULT_CONFIG } from '../base/config.ts'
import { all } from '../store/commands.ts'
import { writeAudit } from '../store/money/audit.ts'
import { getSetting, putSetting } from '../store/settings.ts'
import type { Store } from '../store/store.ts'

const SEEN = 'audited_config'
/** Who is the owner, what may be spent and where money comes in and goes. */
const AUDITED = (config: Config): Readonly<Record<string, unknown>> => flat({ owner: config.owner, wallet: config.wallet })

/** Logs what differs from what was seen last: from the defaults the first time. */
export async function auditConfig(store: Store, config: Config, at: number): Promise<void> {
  const before = { ...AUDITED(DEFAULT_CONFIG), ...getSetting<Record<string, unknown>>(store, SEEN) }
  const now = AUDITED(config)
  const keys = Object.keys(now).filter((key) => JSON.stringify(now[key]) !== JSON.stringify(before[key]))
  if (keys.length === 0) return
  const rows = keys.map((key) => writeAudit({ at, kind: 'policy_changed', data: { key, from: before[key] ?? null, to: now[key] } }))
  await store.write(all(...rows, putSetting({ key: SEEN, value: now, at })))
}

/** Dotted keys; a list is a value. */
function flat(value: object, prefix = ''): Record<string, unknown> {
  const entries = Object.entries(value).flatMap(([name, inner]: [string, unknown]): [string, unknown][] => {
    const key = prefix === '' ? name : `${prefix}.${name}`
    return typeof inner === 'object' && inner !== null && !Array.isArray(inner) ? Object.entries(flat(inner, key)) : [[key, inner]]
  })
  return Object.fromEntries(entries)
}
