/** One request to its end, and waiting for a relay to be there for it. */
import type { Scope } from '../../base/scope.ts'
import type { Filter } from '../types.ts'
import { prefixOf } from './frames.ts'
import type { Relay } from './relay.ts'

/** After a complaint that names no request, those that stay unanswered so long were meant. */
export const AFTER_NOTICE_MS = 3000

export const isDenied = (message: string): boolean => ['auth-required', 'restricted'].includes(prefixOf(message))

export type CollectEnd =
  | { readonly end: 'eose'; readonly hint: string | undefined }
  | { readonly end: 'closed'; readonly message: string }
  | { readonly end: 'timeout' | 'down' }

/** One request to its end; only `eose` means that the relay has sent all it wants to. @throws shutting_down */
export async function collect(
  scope: Scope,
  relay: Relay,
  filters: readonly Filter[],
  timeoutMs: number,
  onEvent: (event: unknown) => void,
): Promise<CollectEnd> {
  const end = await scope.hear<CollectEnd>(timeoutMs, (finish) => {
    let id: string | undefined
    let cancelNotice = () => {}
    const unlisten = relay.listen({ onDown: () => finish({ end: 'down' }) })
    const cancelWait = relay.whenFree('once', () => {
      const fresh = relay.freshSubId()
      const opened = relay.openReq(fresh, filters, {
        onEvent,
        onEose: (hint) => finish({ end: 'eose', hint }),
        onClosed: (message) => finish({ end: 'closed', message }),
        onNotice: (message) => {
          cancelNotice()
          cancelNotice = scope.after('notice', AFTER_NOTICE_MS, () => finish({ end: 'closed', message }))
        },
      })
      if (opened) id = fresh
      else finish({ end: 'down' })
    })
    return () => {
      cancelNotice()
      cancelWait()
      unlisten()
      if (id !== undefined) relay.closeReq(id)
    }
  })
  return end ?? { end: 'timeout' }
}

/** Resolves when the relay is connected; false after the time, or as soon as it is known to be down. @throws shutting_down */
export async function whenConnected(scope: Scope, relay: Relay, timeoutMs: number): Promise<boolean> {
  if (relay.connected) return true
  if (relay.state === 'down') return false
  const isUp = await scope.hear<boolean>(timeoutMs, (tell) => relay.listen({ onUp: () => tell(true), onFailed: () => tell(false) }))
  return isUp ?? false
}
