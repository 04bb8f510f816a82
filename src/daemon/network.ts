/** Where this node meets others: the relays and mints of flags, config, its own sandbox or one that it joined. */
import { z } from 'zod'
import type { Clock } from '../base/clock.ts'
import { type Config, DEFAULT_INDEX_RELAYS } from '../base/config.ts'
import { DEFAULT_RELAYS } from '../base/default-relays.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'
import type { Logger } from '../base/logger.ts'
import type { Home } from '../base/paths.ts'
import type { Scope } from '../base/scope.ts'
import { getSetting, putSetting } from '../store/settings.ts'
import type { Store } from '../store/store.ts'
import { type Health, OK } from './health.ts'
import type { RunOptions } from './launch/run-options.ts'
import { SandboxChild, type SandboxUrls } from './sandbox-child.ts'

export interface Surroundings {
  readonly relays: readonly string[]
  /** To be on the wallet's list from the start. */
  readonly mints: readonly string[]
  readonly sandbox: { readonly urls: SandboxUrls; health(): Health } | undefined
}

interface Deps {
  /** Owns the sandbox process, where this node has one of its own. */
  readonly scope: Scope
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly run: RunOptions
  readonly config: Config
  readonly store: Store
  readonly clock: Clock
  readonly dialer: Dialer
  readonly logger: Logger
  onSandboxLog(line: string): void
}

const JOIN_KEY = 'sandbox_join'

/** Settles it once, at start; every origin in it becomes an exact exception of the dialer. @throws port_taken, sandbox_failed */
export async function settleSurroundings(deps: Deps): Promise<Surroundings> {
  const found = deps.network === 'live' ? ofLive(deps) : await ofSandbox(deps)
  const urls = found.sandbox?.urls
  for (const mint of found.mints) deps.dialer.allow(mint)
  // Others name these too, in relay lists and profiles.
  for (const origin of [...found.relays, ...(urls === undefined ? [] : [urls.lnurlBaseUrl])]) deps.dialer.allow(origin, true)
  return found
}

function ofLive({ run, config }: Deps): Surroundings {
  const relays = [run.relays, config.node.relays, DEFAULT_RELAYS].find((list) => list.length > 0) ?? []
  return { relays, mints: run.mints, sandbox: undefined }
}

/**
 * Where lists and profiles of others are looked for besides our own relays. The public default is nothing for an island: a sandbox
 * node, or one whose relays are all in clear (ws://).
 */
export function indexRelaysOf(config: Config, network: 'sandbox' | 'live', relays: readonly string[]): readonly string[] {
  const { index_relays: configured } = config.node
  const isDefault = configured.join(' ') === DEFAULT_INDEX_RELAYS.join(' ')
  const isIsland = network === 'sandbox' || relays.every((url) => url.startsWith('ws:'))
  return isDefault && isIsland ? [] : configured
}

async function ofSandbox(deps: Deps): Promise<Surroundings> {
  const joined = await joinedSandbox(deps)
  if (joined !== undefined) {
    const { relays = [joined.relayUrl], mints = [joined.mintUrl], ...urls } = joined
    return { relays, mints, sandbox: { urls, health: () => OK } }
  }
  const { home, logger, onSandboxLog: onLog } = deps
  const child = new SandboxChild({ scope: deps.scope.child('sandbox'), home, logger, onLog })
  const urls = await child.start()
  return {
    relays: [urls.relayUrl],
    mints: [urls.mintUrl],
    sandbox: { urls, health: () => child.health },
  }
}

/** The sandbox that was joined, and all that was named with it. Lists are absent in what an older version stored. */
type Joined = SandboxUrls & { readonly relays?: readonly string[]; readonly mints?: readonly string[] }

/** The sandbox of someone else: the first relay and mint of the flags now, or of those of an earlier start. */
async function joinedSandbox(deps: Deps): Promise<Joined | undefined> {
  const { relays, mints } = deps.run
  const [relayUrl] = relays
  const [mintUrl] = mints
  const stored = getSetting<Joined>(deps.store, JOIN_KEY)
  if (relayUrl === undefined || mintUrl === undefined) return stored
  const lnurlBaseUrl = stored?.mintUrl === mintUrl ? stored.lnurlBaseUrl : await askForLnurl(deps.dialer, mintUrl)
  const joined: Joined = { relayUrl, mintUrl, lnurlBaseUrl, relays, mints }
  await deps.store.write(putSetting({ key: JOIN_KEY, value: joined, at: deps.clock.now() }))
  return joined
}

async function askForLnurl(dialer: Dialer, mintUrl: string): Promise<string> {
  dialer.allow(mintUrl)
  let text: string
  try {
    text = (await dialer.fetch(`${mintUrl.replace(/\/$/, '')}/sandbox`)).text
  } catch (error) {
    throw new PylonError('sandbox_failed', `There is no sandbox at ${mintUrl} (${messageOf(error)}): start it first, or check the URL.`)
  }
  const parsed = z.object({ lnurl_base_url: z.string().regex(/^https?:\/\//) }).safeParse(parseJson(text))
  if (!parsed.success) throw new PylonError('sandbox_failed', `${mintUrl} is not the mint of a Pylon sandbox: check the URL.`)
  return parsed.data.lnurl_base_url
}
