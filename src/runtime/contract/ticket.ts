/** The launch ticket: what opens a runtime's prompt endpoint, signed with a key that only host and guest know, short-lived. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { parseJson } from '../../base/json.ts'

const TICKET_KIND = 'runtime_prompt_ticket'
/** How long a ticket opens the endpoint. */
export const TICKET_LIFETIME_MS = 60_000
/** No ticket is longer: refused before any work. */
const MAX_TICKET_CHARS = 1024
/** Separates this use of the key from any other. */
const DOMAIN = 'pylon/runtime-prompt-ticket/v1\n'

const claims = z.strictObject({
  kind: z.literal(TICKET_KIND),
  runtime_id: z.string(),
  /** Unix seconds. */
  exp: z.int(),
  nonce: z.string(),
})

/** A fresh key for one runtime, 64 hex digits. */
export function newTicketKey(): string {
  return randomBytes(32).toString('hex')
}

/** @param key 64 hex digits @param nowMs milliseconds since the epoch */
export function issueTicket(key: string, runtimeId: string, nowMs: number, lifetimeMs = TICKET_LIFETIME_MS): string {
  const exp = Math.ceil((nowMs + lifetimeMs) / 1000)
  const body = Buffer.from(
    JSON.stringify({ kind: TICKET_KIND, runtime_id: runtimeId, exp, nonce: randomBytes(12).toString('base64url') }),
  ).toString('base64url')
  return `${body}.${sign(key, body).toString('base64url')}`
}

/** Whether the ticket was signed with this key, for this runtime, and is still good. */
export function verifyTicket(key: string, runtimeId: string, ticket: string, nowMs: number): boolean {
  if (ticket.length > MAX_TICKET_CHARS) return false
  const [body, signature, ...rest] = ticket.split('.')
  if (body === undefined || signature === undefined || rest.length > 0) return false
  const given = Buffer.from(signature, 'base64url')
  const expected = sign(key, body)
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return false
  const parsed = claims.safeParse(parseJson(Buffer.from(body, 'base64url').toString('utf8')))
  if (!parsed.success || parsed.data.runtime_id !== runtimeId) return false
  // A ticket from further ahead than any lifetime was not issued by a host of this clock.
  const left = parsed.data.exp * 1000 - nowMs
  return left > 0 && left <= 10 * TICKET_LIFETIME_MS
}

function sign(key: string, body: string): Buffer {
  return createHmac('sha256', Buffer.from(key, 'hex')).update(DOMAIN).update(body).digest()
}
