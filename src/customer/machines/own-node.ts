/** Commands to the machines of this very node, for when no relay carries them: they come to the same desk, under the same key. */
import { PylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import type { ControlCommandInput } from '../../nostr/control/commands.ts'
import {
  type CommandEnvelope,
  type ControlResult,
  type ControlStatus,
  decodeCommand,
  encodeCommand,
} from '../../nostr/control/envelopes.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import { errorOfNode } from './node-error.ts'

export interface OwnNode {
  /** 64 hex digits. @throws locked */
  pubkey(): string
  handle(requester: string, envelope: CommandEnvelope, emit: (status: ControlStatus) => void): Promise<ControlResult>
}

export interface StraightOrder {
  readonly requester: string
  readonly requestId: string
  readonly idempotencyKey: string
  readonly command: ControlCommandInput
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

/**
 * What came over a relay meanwhile is joined, not done twice.
 * @throws what errorOfNode gives; timeout, the signal's reason: then it goes on all the same
 */
export async function commandOwnNode(
  own: OwnNode,
  scope: Scope,
  order: StraightOrder,
  emit: (status: ControlStatus) => void,
): Promise<ControlResult> {
  const { requester, requestId, idempotencyKey, command, timeoutMs, signal } = order
  const envelope = decodeCommand(encodeCommand({ requestId, idempotencyKey, command }))
  // It is the machines' work, which goes on whoever waits for it.
  const work = (async () => await own.handle(requester, envelope, emit))()
  if (!(await scope.patience(timeoutMs, work, signal))) {
    signal.throwIfAborted()
    const words = `This node did not end it within ${Math.round(timeoutMs / 1000)} s; the same call with --idempotency-key ${idempotencyKey} goes on where it is.`
    throw new PylonError('timeout', words)
  }
  try {
    return await work
  } catch (error) {
    throw error instanceof ControlError ? errorOfNode(own.pubkey(), error) : error
  }
}
