/** Volumes that outlive runtimes: whose they are, listed and deleted; each is its owner's alone. */
import { messageOf } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { ControlProvider } from '../../nostr/control/vocabulary.ts'
import type { Keyring } from '../../nostr/types.ts'
import type { PersistentVolume } from '../../runtime/adapter.ts'
import { getRuntime } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import { fail, toControlError } from './failures.ts'
import type { Substrates } from './substrates.ts'

const MAX_LISTED = 256

export class Volumes {
  readonly #deps: { readonly store: Store; readonly substrates: Substrates; readonly keyring: Keyring }

  constructor(deps: { readonly store: Store; readonly substrates: Substrates; readonly keyring: Keyring }) {
    this.#deps = deps
  }

  /** A substrate that does not answer is named, and hides no other. */
  async list(requester: string, command: CommandOf<'list_volumes'>): Promise<Json> {
    const asked = command.provider === undefined ? this.#deps.substrates.providers : [command.provider]
    const volumes: Json[] = []
    const problems: Json[] = []
    for (const provider of asked) {
      try {
        for (const { id, name, runtimeId, inUse } of await this.#of(requester, provider)) {
          volumes.push({ provider, volume: id, name: name ?? null, runtime_id: runtimeId ?? null, in_use: inUse })
        }
      } catch (error) {
        problems.push({ provider, reason: toControlError(error, 'operation_failed').detail ?? messageOf(error) })
      }
    }
    return { operation: 'list_volumes', volumes: volumes.slice(0, MAX_LISTED), total: volumes.length, problems }
  }

  /** @throws ControlError invalid_command for what is not there or not theirs, operation_failed while a runtime has it */
  async remove(requester: string, { provider, volume: id }: CommandOf<'delete_volume'>): Promise<Json> {
    const found = (await this.#of(requester, provider)).find((volume) => volume.id === id)
    if (found === undefined) throw fail('invalid_command', `volume: you have no volume ${id} on ${provider}`, 'list_volumes names yours')
    if (found.inUse) throw fail('operation_failed', `the runtime ${found.runtimeId ?? ''} has the volume`, 'tear it down first')
    await this.#deps.substrates.get(provider).deleteVolume?.(id)
    return { operation: 'delete_volume', provider, volume: id, deleted: true }
  }

  async #of(requester: string, provider: ControlProvider): Promise<readonly PersistentVolume[]> {
    const { store, substrates, keyring } = this.#deps
    const all = (await substrates.volumes(provider)) ?? []
    return all.filter((volume) => {
      // Of one from before owners were noted its runtime may still tell; else it is the node's own.
      const owner = volume.ownerPubkey ?? getRuntime(store, volume.runtimeId ?? '')?.ownerPubkey
      return owner === undefined ? keyring.owns(requester) : owner === requester
    })
  }
}
