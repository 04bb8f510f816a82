/** What commands that move money share: the key under which a repeated call happens once. */
import { PylonError } from '../base/errors.ts'
import type { CallOptions } from '../control/client.ts'
import { textOption } from './options.ts'
import { one } from './terminal/values.ts'

export const idempotencyOption = textOption('Repeat a call under its key: it happens once (a fresh one by default)')

/** The key of the call when the person gave one. @throws usage */
export function spendingCall(args: { idempotencyKey: string | undefined }): CallOptions {
  if (args.idempotencyKey === undefined) return {}
  const idempotencyKey = one(args.idempotencyKey, '--idempotency-key')
  // It travels as a header.
  if (!/^[\x21-\x7e]{1,200}$/.test(idempotencyKey))
    throw new PylonError('usage', '--idempotency-key takes 1 to 200 printable ASCII characters without spaces.')
  return { idempotencyKey }
}
