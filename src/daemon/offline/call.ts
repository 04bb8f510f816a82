/** The routes that need no node, over a database that nobody holds: opened read-only. */
import { existsSync } from 'node:fs'
import { howToStart } from '../../base/advice.ts'
import { systemClock } from '../../base/clock.ts'
import { loadConfig } from '../../base/config.ts'
import { isPylonError, PylonError } from '../../base/errors.ts'
import { stringify } from '../../base/json.ts'
import type { Home } from '../../base/paths.ts'
import { VERSION } from '../../base/version.ts'
import type { Answer, Network } from '../../control/client.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { type Call, type Handler, type Input, type Output, parseRequest, type Route } from '../../control/route.ts'
import { Store } from '../../store/store.ts'
import { examine } from '../doctor/doctor.ts'
import { readTable } from '../handlers.ts'
import type { ReadServices } from '../services.ts'

/** @throws not_running when the home never held a node. */
export async function callOffline<R extends Route>(
  { home, network }: { home: Home; network: Network },
  route: R,
  input: Input<R>,
): Promise<Answer<Output<R>>> {
  // Doctor is asked when something is missing.
  const isDoctor = route.path === nodeRoutes.doctor.path && existsSync(home.dir)
  if (!existsSync(home.database) && !isDoctor) {
    throw new PylonError('not_running', `Pylon is not running and there is no database to read yet; start it with: ${howToStart(network)}`)
  }
  let opened: Store | undefined
  try {
    const services: ReadServices = {
      home,
      network,
      clock: systemClock,
      // Only who needs them stumbles over what is broken.
      get store() {
        opened ??= openReadOnly(home)
        return opened
      },
      config: () => loadConfig(home.config),
    }
    // The other handlers take the database at once, and doctor is asked for when it does not open.
    const handler = isDoctor ? () => examine(services) : readTable(services).get(`${route.method} ${route.path}`)
    if (handler === undefined) throw new PylonError('not_running', `Pylon is not running; start it with: ${howToStart(network)}`)
    const call: Call = { idempotencyKey: 'offline', signal: new AbortController().signal }
    const value = (await (handler as Handler<R>)(parseRequest(route, input), call)) as Output<R>
    const body = JSON.parse(stringify({ network, ...(route.response.encode(value) as object) })) as Record<string, unknown>
    return { value, body, network, nodeVersion: VERSION }
  } finally {
    opened?.close()
  }
}

/** Even reading a database in WAL mode needs to make a file beside it. @throws home_unusable, database_newer, database_corrupt */
function openReadOnly(home: Home): Store {
  try {
    return Store.open(home.database, { readonly: true })
  } catch (error) {
    if (!isPylonError(error, 'internal')) throw error
    throw new PylonError(
      'home_unusable',
      `The database ${home.database} can't be opened (${error.message}): check rights and that its file system is writable.`,
      { cause: error },
    )
  }
}
