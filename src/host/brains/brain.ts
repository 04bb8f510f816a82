/** What thinks for an agent: one interface, and the settings of each kind. */
import { z } from 'zod'
import type { Clock } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { PylonError } from '../../base/errors.ts'
import type { AcpHands } from '../../inference/acp.ts'
import type { Observation } from '../observation.ts'
import type { RawAction } from './grammar.ts'
import { parseScript } from './script.ts'

/** What a brain answered: nothing of it has happened yet. */
export interface Thought {
  readonly text: string
  readonly actions: readonly RawAction[]
  /** Ids of what was heard and this answer has not dealt with: for the next tick. */
  readonly left: readonly string[]
  /** What could not be read of the answer, in words. */
  readonly problems: readonly string[]
  /** What thinking took from the agent's wallet. */
  readonly costMsats: bigint
}

export interface Brain {
  /** @throws brain_failed, or the signal's reason. */
  think(observation: Observation, signal: AbortSignal): Promise<Thought>
}

/** argv, or a line for `sh -c`. */
const command = z.union([z.string().min(1).max(10_000), z.array(z.string().min(1)).min(1).max(100)])

export const argvOf = (given: z.infer<typeof command>): readonly string[] => (typeof given === 'string' ? ['sh', '-c', given] : given)

const schema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('script'),
    /** A rules file, TOML or JSON; absent: the built-in rules. */
    rules: z.string().max(200_000).optional(),
    /** Built-in rules only: what it zaps a note that mentions it with. */
    zap_sats: z.int().min(0).max(1_000_000).default(0),
  }),
  z.strictObject({
    type: z.literal('exec'),
    command,
  }),
  z.strictObject({
    type: z.literal('acp'),
    /** An agent that speaks the Agent Client Protocol over its stdio. */
    command,
    /** Whether it gets the tools of this agent and so may act while it thinks. */
    hands: z.boolean().default(true),
  }),
  z.strictObject({
    type: z.literal('openai'),
    /** Empty: the server of provider.openai_base_url, else the first local one that answers. */
    base_url: z.union([z.literal(''), z.string().regex(/^https?:\/\/[^\s#]+$/, 'must be an http:// or https:// URL')]).default(''),
    /** Empty: the first that the server has. */
    model: z.string().max(200).default(''),
    api_key_file: z.string().max(1000).default(''),
    /** Reasoning counts too, and an answer that is cut off is not acted on. */
    max_tokens: z.int().min(16).max(32_000).default(2000),
  }),
])

export type BrainSettings = z.infer<typeof schema>
/** As given at spawn: defaults may be left out. */
export type BrainInput = z.input<typeof schema>

/** @throws brain_invalid naming the field, script_invalid naming rule and field */
export function parseBrain(value: unknown): BrainSettings {
  const parsed = schema.safeParse(value)
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'type'} ${issue.message}`)
    throw new PylonError('brain_invalid', `The brain cannot run as configured: ${problems.join('; ')}.`)
  }
  if (parsed.data.type === 'script' && parsed.data.rules !== undefined) parseScript(parsed.data.rules)
  return parsed.data
}

/** What a brain that is a program of others is given of this node, and what is kept from it. */
export interface Hands {
  /** Tools of this agent alone, until they are closed. @param dir a private folder */
  open(pubkey: string, dir: string): Promise<AcpHands>
  /** The command within a fence that hides the home, where there can be one; `dir` stays in sight. */
  enclose(command: readonly string[], dir: string): Promise<readonly string[]>
}

export interface BrainDeps {
  readonly clock: Clock
  config(): Config
  readonly hands?: Hands
}
