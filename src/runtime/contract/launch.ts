/** launch.json: what the host hands to a full guest at its start, as a private file. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import { PROTOCOLS } from './prompt.ts'
import { decodeRuntimeSpec, type RuntimeSpec, shapeError } from './spec.ts'

export const LAUNCH_SCHEMA_VERSION = 1

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
/** Relays of one session, at most. */
export const MAX_SESSION_RELAYS = 8

const sessionShape = z.strictObject({
  /** Whose words are heard, and nobody else's. */
  owner_pubkey: hex64,
  /** Where owner and agent meet, as others reach them. */
  relays: z
    .array(
      z
        .string()
        .regex(/^wss?:\/\//)
        .max(512),
    )
    .min(1)
    .max(MAX_SESSION_RELAYS),
  /** Proves to the owner which key was made here. */
  token: hex64,
  /** A Unix socket that all relays are spoken to through. Left out: by the network. */
  door: z.strictObject({ unix: z.string().min(1).max(4096) }).optional(),
  /** Where the key and the conversation are kept; by default on the first persistent volume, else in the state directory. */
  state_dir: z.string().startsWith('/').max(4096).optional(),
})

const launchShape = z.strictObject({
  schema_version: z.literal(LAUNCH_SCHEMA_VERSION),
  spec: z.unknown(),
  /** Null: run spec.entry_command once. Else: spec.entry_command is the agent, and prompts are served. */
  protocol: z.enum(PROTOCOLS).nullable(),
  /** The working directory of the command; default: the guest's own. */
  working_dir: z.string().startsWith('/').optional(),
  /** User of the command where the guest runs as root; default: whoever the guest is. */
  run_as: z.strictObject({ uid: z.int().min(0), gid: z.int().min(0) }).optional(),
  /** The whole time of a one-shot run. */
  timeout_secs: z
    .int()
    .min(1)
    .max(7 * 86_400)
    .optional(),
  /** Where to serve prompts; may be left out with a session: `unix` is a path, relative ones below the state directory. */
  prompt: z
    .strictObject({
      listen: z.union([
        z.strictObject({ unix: z.string().min(1).max(4096) }),
        z.strictObject({ host: z.string().min(1), port: z.int().min(0).max(65_535) }),
      ]),
      /** Verifies launch tickets; never leaves this file. */
      ticket_key: hex64,
    })
    .optional(),
  /** The agent has a key of its own and is talked to over relays, end to end encrypted. */
  session: sessionShape.optional(),
  /** Added to a bare environment of the command: secrets come this way, never by instance config. */
  env: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string()).default({}),
})

export type GuestLaunchInput = z.input<typeof launchShape>
export interface GuestLaunch extends Readonly<Omit<z.output<typeof launchShape>, 'spec'>> {
  readonly spec: RuntimeSpec
}

/** @throws guest_request_invalid, or a spec_* error for the spec inside */
export function decodeLaunch(text: string, source: string): GuestLaunch {
  const value = parseJson(text)
  if (value === undefined) throw new PylonError('guest_request_invalid', `${source}: is no JSON.`)
  const parsed = launchShape.safeParse(value)
  if (!parsed.success) throw shapeError(source, 'guest_request_invalid', parsed.error)
  const spec = decodeRuntimeSpec(parsed.data.spec)
  const { protocol, prompt, session, env } = parsed.data
  const isModel = session !== undefined && env['PYLON_AGENT_BASE_URL'] !== undefined
  if (spec.entry_command === undefined && !isModel)
    throw new PylonError('spec_empty_field', 'entry_command must not be empty.', { details: { field: 'entry_command' } })
  if (protocol !== null && prompt === undefined && session === undefined) {
    throw new PylonError('guest_request_invalid', `${source}: a protocol needs the field prompt or session.`)
  }
  return { ...parsed.data, spec }
}
