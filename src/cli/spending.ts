/** What commands that move money share: the key under which a repeated call happens once. */
import type { CallOptions } from '../control/client.ts'

export const idempotencyOption = {
  type: 'string',
  nargs: 1,
  describe: 'Repeat a call under its key: it happens once (a fresh one by default)',
} as const

/** The key of the call when the person gave one. */
export function spendingCall(args: { idempotencyKey: string | undefined }): CallOptions {
  return args.idempotencyKey === undefined ? {} : { idempotencyKey: args.idempotencyKey }
}
