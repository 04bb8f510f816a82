/** What a tenant is told of a runtime outside of any command under way. */
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import { isUnheard } from '../../nostr/keys/away.ts'
import type { Nostr } from '../../nostr/types.ts'
import type { Command } from '../../store/commands.ts'
import { requestOf } from '../../store/selling/control-requests.ts'
import type { Store } from '../../store/store.ts'
import type { CommandTransport } from './machines.ts'

export class Notices {
  readonly #store: Store
  readonly #nostr: Pick<Nostr, 'keyring' | 'nudgeOutbox'>
  readonly #transport: CommandTransport

  constructor(store: Store, nostr: Pick<Nostr, 'keyring' | 'nudgeOutbox'>, transport: CommandTransport) {
    this.#store = store
    this.#nostr = nostr
    this.#transport = transport
  }

  /** As `hand`; while the node's key is away it is left out, and what it tells of happens all the same. */
  async tell(tenant: string, runtimeId: string, status: ControlStatus): Promise<readonly Command<unknown>[]> {
    try {
      return await this.hand(tenant, runtimeId, status)
    } catch (error) {
      if (isUnheard(error)) return []
      throw error
    }
  }

  /** As part of the commit of what is told; `nudge` after it. @throws bunker_unreachable */
  async hand(tenant: string, runtimeId: string, status: ControlStatus): Promise<readonly Command<unknown>[]> {
    // The command that made it may have been sent again since, and mean another runtime now.
    const requestId = requestOf(this.#store, runtimeId)?.requestId ?? (this.#nostr.keyring.owns(tenant) ? undefined : runtimeId)
    return requestId === undefined ? [] : await this.#transport.notify(tenant, requestId, status)
  }

  nudge(): void {
    this.#nostr.nudgeOutbox()
  }
}
