/** Which handler answers a route: the running node's own, also for those that a stopped node answers from its database. */
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import type { Tasks } from '../../../src/control/calls.ts'
import { purchasesRoutes } from '../../../src/control/contract/jobs.ts'
import type { Customer } from '../../../src/customer/customer.ts'
import { boundRoutes } from '../../../src/daemon/handlers.ts'
import type { PylonNode } from '../../../src/daemon/node.ts'
import { Part } from '../../../src/daemon/part.ts'
import type { NodeParts } from '../../../src/daemon/parts.ts'
import type { Identity } from '../../../src/nostr/keys/identity.ts'
import { insertPurchase } from '../../../src/store/buying/purchases.ts'
import { testScope } from '../../support/scope.ts'
import { openStore } from '../../support/store.ts'
import { tempDir } from '../../support/temp.ts'

async function handlerOf(customer: () => Partial<Customer>) {
  const part = new Part<Customer>({ name: 'customer', build: () => customer() as Customer })
  part.build(silentLogger, testScope())
  const store = openStore(join(tempDir(), 'pylon.db'))
  onTestFinished(() => store.close())
  await store.write(insertPurchase({ id: 'p', kind: 5001, order: {}, provider: null, deadlineAt: 1, at: 1 }))
  const node: Partial<PylonNode> = {
    ...{ store, clock: new ManualClock(), config: () => DEFAULT_CONFIG, network: 'live' },
    parts: { customer: part } as NodeParts,
    identity: { pubkey: 'a'.repeat(64) } as Identity,
  }
  const routes = boundRoutes(node as PylonNode, {} as Tasks)
  const { path, method } = purchasesRoutes.getPurchase
  const bound = routes.find(({ route }) => route.path === path && route.method === method)
  if (bound === undefined) throw new Error('The route is not bound.')
  return (wait?: number) =>
    bound.handler({ id: 'p', ...(wait === undefined ? {} : { wait }) }, { idempotencyKey: 'k', signal: new AbortController().signal })
}

test('GET /v1/purchases/:id?wait waits with the customer of the node, and tells what is stored where that is locked', async () => {
  const waited: number[] = []
  const wait = (_id: string, ms: number) => {
    waited.push(ms)
    return Promise.reject(new PylonError('timeout', 'So long.'))
  }
  const live = await handlerOf(() => ({ wait }))
  expect(await live()).toMatchObject({ status: 'preparing' })
  await expect(live(10)).rejects.toMatchObject({ code: 'timeout' })
  expect(waited).toEqual([10_000])
  const locked = await handlerOf(() => {
    throw new PylonError('locked', 'The keys are locked.')
  })
  expect(await locked(10)).toMatchObject({ status: 'preparing' })
})
