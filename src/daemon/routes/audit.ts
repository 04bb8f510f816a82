/** Handler of the route about the audit log. */
import { rfc3339 } from '../../base/clock.ts'
import { isRecord, parseJson } from '../../base/json.ts'
import type { auditRoutes } from '../../control/contract/audit.ts'
import type { Handlers } from '../../control/route.ts'
import { recentAudit } from '../../store/money/audit.ts'
import type { ReadServices } from '../services.ts'

const DEFAULT_ROWS = 50

export function auditReadHandlers({ store }: Pick<ReadServices, 'store'>): Handlers<typeof auditRoutes> {
  return {
    listAudit: ({ limit }) => ({
      rows: recentAudit(store, limit ?? DEFAULT_ROWS).map(({ id, at, kind, data, hash, previous }) => {
        const parsed = parseJson(data)
        return { id, at: rfc3339(at), kind, data: isRecord(parsed) ? parsed : {}, hash, previous }
      }),
    }),
  }
}
