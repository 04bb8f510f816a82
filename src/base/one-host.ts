/** One request means one host: with two Host headers, whoever checks and whoever acts may read different ones. */
import type { IncomingMessage } from 'node:http'

/** Node keeps the first of several; only the raw list has them all. */
export function hasManyHosts({ rawHeaders }: Pick<IncomingMessage, 'rawHeaders'>): boolean {
  return rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === 'host').length > 1
}
