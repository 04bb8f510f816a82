/** Handlers of the routes about what waits for the owner. */
import { sats } from '../../base/amounts.ts'
import type { approvalsRoutes } from '../../control/contract/approvals.ts'
import type { Handlers } from '../../control/route.ts'
import { type ApprovalView, readApproval, readApprovals } from '../../host/approvals.ts'
import type { ReadServices, Services } from '../services.ts'

type Routes = typeof approvalsRoutes

const inSats = <T extends ApprovalView>(view: T) => ({ ...view, amount_sats: sats(view.amount_sats) })

export function approvalsReadHandlers({ store }: Pick<ReadServices, 'store'>): Pick<Handlers<Routes>, 'listApprovals' | 'getApproval'> {
  return {
    listApprovals: ({ all, limit = 100 }) => ({ approvals: readApprovals(store, { all: all === 'true', limit }).map(inSats) }),
    getApproval: ({ id }) => inSats(readApproval(store, id)),
  }
}

export function approvalsHandlers({
  store,
  parts,
}: Pick<Services, 'store' | 'parts'>): Omit<Handlers<Routes>, 'listApprovals' | 'getApproval'> {
  const decide = async (id: number, to: 'approved' | 'denied', reason: string | null) => {
    await parts.host.get().approvals.decide({ id, to, by: 'owner', reason })
    const { params: _params, ...view } = readApproval(store, id)
    return inSats(view)
  }
  return {
    approveAction: ({ id }) => decide(id, 'approved', null),
    denyAction: ({ id, reason }) => decide(id, 'denied', reason === undefined || reason === '' ? null : reason),
  }
}
