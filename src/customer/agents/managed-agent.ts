/** One managed agent: taken from state to state until it is ready, has failed or has ended; taken up where it was after a restart. */
import { isPylonError, messageOf, PylonError, toPylonError } from '../../base/errors.ts'
import { asJson, asRecord, type Json } from '../../base/json.ts'
import type { News } from '../../base/news.ts'
import type { Cleanup, ManagedPhase } from '../../base/states.ts'
import { type CommandOf, type ControlCommandInput, controlCommand } from '../../nostr/control/commands.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import {
  getManagedAgent,
  type ManagedAgentPatch,
  type ManagedAgentRow,
  patchManagedAgent,
  stepManagedAgent,
} from '../../store/buying/managed-agents.ts'
import { managedKey } from '../../store/keys.ts'
import { persist } from '../../store/persist.ts'
import type { TenantAnswer } from '../machines/tenant.ts'
import type { AgentsDeps } from './deps.ts'
import { isComing, type ManagedTask, phaseOfStatus, taskOf, wordsOfStatus } from './life.ts'
import { hooksOf, whyNotProvisioned } from './providers.ts'

/** From a runtime that is ready to its hello, and again to its key package: relays may be slow, and it may have to fetch its model first. */
const KEY_PACKAGE_MS = 120_000
/** A teardown that failed is tried again this long, then it is left to the owner. */
const TEARDOWN_DAYS_MS = 24 * 3600_000
const TEARDOWN_AGAIN = { minMs: 5_000, maxMs: 300_000 }
const ASK_MS = 20_000

export class ManagedAgent {
  readonly id: string
  readonly #deps: AgentsDeps
  readonly #news: News
  /** Ends what is done for it on its way up. */
  readonly #cut = new AbortController()

  constructor(id: string, deps: AgentsDeps, news: News) {
    this.id = id
    this.#deps = deps
    this.#news = news
  }

  row(): ManagedAgentRow {
    const row = getManagedAgent(this.#deps.store, this.id)
    if (row === undefined) throw new PylonError('internal', 'The record of an agent is gone.')
    return row
  }

  /** Goes on from whatever was reached, once however often it is asked for. */
  bring(): void {
    const { scope } = this.#deps
    scope.spawn(`agent ${this.id}`, async () => {
      do await scope.once(`agent ${this.id}`, () => this.#run())
      while (!scope.isClosing && this.#task() !== 'rest')
    })
  }

  /** Its owner wants it gone; `bring` does the rest. */
  async end(): Promise<void> {
    for (;;) {
      const { phase, cleanup } = this.row()
      if (phase === 'ended') return
      if (phase === 'ending') break
      const patch: ManagedAgentPatch = { cleanup: cleanup === 'kept' || cleanup === 'manual' ? 'due' : cleanup, cleanupReason: null }
      await this.#step(phase, 'ending', 'its owner ends it', patch)
    }
    this.#cut.abort(new PylonError('cancelled', 'The agent was ended by its owner.'))
  }

  async #run(): Promise<void> {
    const { scope } = this.#deps
    const again = scope.backoff(TEARDOWN_AGAIN)
    for (;;) {
      const row = this.row()
      const task = this.#task()
      if (task === 'rest' || scope.isClosing) return
      if (task === 'end') {
        await this.#step(row.phase, 'ended', 'nothing of it is left', {})
        continue
      }
      if (task === 'tear down') {
        if (!(await this.#tearDown(row))) await this.#news.next(this.id, again.nextMs())
        continue
      }
      try {
        await this.#goOn(row, task)
      } catch (error) {
        if (scope.isClosing) throw error
        await this.#failed(error)
      }
    }
  }

  #task(): ManagedTask {
    const row = this.row()
    return taskOf({ ...row, isProvisioned: row.runtime !== null, welcomesLeft: row.welcomes.length })
  }

  async #goOn(row: ManagedAgentRow, task: Exclude<ManagedTask, 'rest' | 'end' | 'tear down'>): Promise<void> {
    switch (task) {
      case 'provision':
        return await this.#provision(row)
      case 'learn its key':
        return await this.#awaitHello(row)
      case 'invite':
        return await this.#invite(row)
      case 'hand over the welcome':
        return await this.#handOver(row)
      case 'be ready':
        return await this.#step(row.phase, 'ready', 'ready to talk', {})
    }
  }

  async #provision(row: ManagedAgentRow): Promise<void> {
    // From here on something may exist.
    await this.#patch({ cleanup: 'due' })
    let told: Promise<void> = Promise.resolve()
    let answer: TenantAnswer
    try {
      answer = await this.#send(row, 'provision', commandOf(row), (status) => {
        told = told.then(() => this.#heard(status))
      })
    } finally {
      await told
    }
    const { phase } = this.row()
    await this.#step(phase, 'waiting_for_keypackage_publish', 'the runtime is ready; waiting for the key of its agent', {
      runtimeId: answer.runtime.runtime_id,
      runtime: asJson(answer.runtime),
      payload: asJson(answer.payload ?? null),
      ...this.#keyIn(answer),
    })
  }

  /** What the node says of its bot, where it says it; a hello that came before stands. */
  #keyIn({ runtime }: TenantAnswer): ManagedAgentPatch {
    if (this.row().botPubkey !== null) return {}
    const told = runtime.bot_pubkey ?? asRecord(runtime.metadata)['bot_pubkey']
    return typeof told === 'string' && /^[0-9a-f]{64}$/.test(told) ? { botPubkey: told } : {}
  }

  /** A word of the node on the way. */
  async #heard(status: ControlStatus): Promise<void> {
    const row = this.row()
    if (!isComing(row.phase)) return
    const startupPhase = asRecord(status.progress as Json | undefined)['startup_phase']
    const next = phaseOfStatus({ phase: status.phase, startupPhase: typeof startupPhase === 'string' ? startupPhase : undefined })
    const patch = row.runtimeId === null && status.runtime_id !== undefined ? { runtimeId: status.runtime_id } : {}
    const to = next !== undefined && isFurther(row.phase, next) ? next : row.phase
    if (status.phase === 'failed') return await this.#patch(patch)
    await this.#step(row.phase, to, wordsOfStatus(status), patch)
  }

  async #awaitHello(row: ManagedAgentRow): Promise<void> {
    const { clock } = this.#deps
    const until = clock.now() + KEY_PACKAGE_MS
    while (this.row().botPubkey === null) {
      this.#cut.signal.throwIfAborted()
      const leftMs = until - clock.now()
      if (leftMs <= 0) {
        const seconds = Math.round(KEY_PACKAGE_MS / 1000)
        const words = `The agent in ${row.runtimeId} did not say its key within ${seconds} s. It needs the relays ${relaysOf(row).join(', ')}. Look at its log: pylon runtime logs ${row.runtimeId}${this.#serverOption(row)}`
        throw new PylonError('session_no_key_package', words)
      }
      await this.#news.next(this.id, leftMs, this.#cut.signal)
      if (this.#deps.scope.isClosing)
        throw new PylonError('shutting_down', 'The node ends; it goes on with the agent after the next start.')
    }
  }

  async #invite(row: ManagedAgentRow): Promise<void> {
    const { sessions } = this.#deps.owner
    const command = commandOf(row)
    const peer = row.botPubkey ?? ''
    const { group, welcomes } = await sessions.create({
      key: managedKey(row.id, 'session'),
      peers: [peer],
      name: row.name,
      relays: relaysOf(row),
      timeoutMs: KEY_PACKAGE_MS,
      signal: this.#cut.signal,
    })
    const isHanded = hooksOf(command.provider).processWelcome !== 'none'
    const kept = welcomes.map(({ wrapperEventId, rumor }) => ({ wrapperEventId, rumorJson: JSON.stringify(rumor) }))
    await this.#step(row.phase, row.phase, 'the session is made and the welcome is sent', {
      groupId: group.id,
      welcomes: isHanded ? kept : [],
    })
  }

  async #handOver(row: ManagedAgentRow): Promise<void> {
    const [welcome, ...rest] = row.welcomes
    if (welcome === undefined) return
    const command: ControlCommandInput = {
      command: 'process_welcome',
      runtime_id: row.runtimeId ?? '',
      group_id: row.groupId ?? '',
      wrapper_event_id_hex: welcome.wrapperEventId,
      welcome_event_json: welcome.rumorJson,
    }
    let message = 'the runtime was handed its welcome'
    try {
      await this.#send(row, `welcome:${welcome.wrapperEventId}`, command)
    } catch (error) {
      this.#cut.signal.throwIfAborted()
      if (this.#deps.scope.isClosing || hooksOf(commandOf(row).provider).processWelcome === 'required') throw error
      message = `the welcome goes by relay alone: ${messageOf(error)}`
    }
    await this.#step(row.phase, row.phase, message, { welcomes: rest })
  }

  async #failed(error: unknown): Promise<void> {
    const row = this.row()
    if (!isComing(row.phase)) return
    const known = toPylonError(error)
    const isRunning = row.runtime !== null
    const cleanup: Cleanup = row.cleanup === 'due' && row.keep && isRunning ? 'kept' : row.cleanup
    const isOwn = row.server === this.#deps.ownPubkey()
    const reason = isRunning ? known.message : whyNotProvisioned(commandOf(row).provider, isOwn, known)
    this.#deps.logger.warn({ agent: row.name, runtime_id: row.runtimeId, error: known.message }, 'an agent did not become ready')
    await this.#step(row.phase, 'failed', known.message, { reason, errorCode: known.code, cleanup, cleanupReason: null })
  }

  /** @returns whether that is settled, one way or the other */
  async #tearDown(row: ManagedAgentRow): Promise<boolean> {
    const { scope, clock, logger } = this.#deps
    try {
      const runtimeId = row.runtimeId ?? (await this.#askForRuntime(row))
      const done = runtimeId === undefined ? undefined : await this.#tornDown(row, runtimeId)
      await this.#patch({ ...given(runtimeId), ...(done ?? { cleanup: 'done', cleanupReason: null }) })
      return true
    } catch (error) {
      if (scope.isClosing) throw error
      const words = messageOf(error)
      logger.warn(
        { agent: row.name, runtime_id: row.runtimeId, error: words },
        'the runtime of an agent could not be torn down; it is tried again',
      )
      const isTooLate = clock.now() - row.createdAt > TEARDOWN_DAYS_MS && row.cleanupReason !== null
      await this.#patch({ cleanupReason: words, ...(isTooLate ? { cleanup: 'manual' } : {}) })
      return isTooLate
    }
  }

  async #tornDown(row: ManagedAgentRow, runtimeId: string): Promise<ManagedAgentPatch> {
    try {
      const { payload } = await this.#send(row, 'teardown', { command: 'teardown', runtime_id: runtimeId }, () => undefined, true)
      const { teardown, hint, reason } = asRecord(payload)
      if (teardown === undefined || teardown === 'deleted') return { cleanup: 'done', cleanupReason: null }
      const words = [hint, reason].filter((part) => typeof part === 'string').join('; ')
      return { cleanup: 'manual', cleanupReason: words === '' ? String(teardown) : words }
    } catch (error) {
      if (!isPylonError(error, 'runtime_not_found') && !isPylonError(error, 'runtime_gone')) throw error
      return { cleanup: 'done', cleanupReason: null }
    }
  }

  /** What the node made of the provision, where no status named it. */
  async #askForRuntime(row: ManagedAgentRow): Promise<string | undefined> {
    try {
      const command = { command: 'get_request', key: managedKey(row.id, 'provision') } as const
      const { runtime } = await this.#deps.tenant.send(
        { server: row.server, command, idempotencyKey: managedKey(row.id, 'ask'), timeoutMs: ASK_MS },
        () => undefined,
      )
      return asRecord(runtime.metadata)['summary'] === true ? undefined : runtime.runtime_id
    } catch (error) {
      if (isPylonError(error) && error.details['control_code'] === 'request_not_found') return undefined
      throw error
    }
  }

  #send(
    row: ManagedAgentRow,
    what: string,
    command: ControlCommandInput,
    emit: (status: ControlStatus) => void = () => undefined,
    isLast = false,
  ): Promise<TenantAnswer> {
    const { server, maxSats, payWith } = row
    const order = {
      ...{ server, command, idempotencyKey: managedKey(row.id, what) },
      ...(maxSats === null ? {} : { maxSats }),
      ...(payWith === null ? {} : { payWith }),
      ...(isLast ? {} : { signal: this.#cut.signal }),
    }
    return this.#deps.tenant.send(order, emit)
  }

  #serverOption({ server }: ManagedAgentRow): string {
    return server === this.#deps.ownPubkey() ? '' : ` --server ${npubOf(server)}`
  }

  /** A conflict: its owner ended it meanwhile, which the next look finds. */
  async #step(from: ManagedPhase, to: ManagedPhase, message: string, patch: ManagedAgentPatch): Promise<void> {
    const { clock } = this.#deps
    try {
      await persist(this.#deps, stepManagedAgent({ id: this.id, from, to, message, patch, at: clock.now() }))
    } catch (error) {
      if (!isPylonError(error, 'conflict')) throw error
      await this.#patch(patch)
    }
    this.#news.tell(this.id)
  }

  async #patch(patch: ManagedAgentPatch): Promise<void> {
    await persist(this.#deps, patchManagedAgent({ id: this.id, patch, at: this.#deps.clock.now() }))
    this.#news.tell(this.id)
  }
}

const given = (runtimeId: string | undefined): ManagedAgentPatch => (runtimeId === undefined ? {} : { runtimeId })

export function commandOf(row: ManagedAgentRow): CommandOf<'provision'> {
  const command = controlCommand.parse(row.command)
  if (command.command !== 'provision') throw new PylonError('internal', 'The command of an agent is none that makes one.')
  return command
}

export const relaysOf = (row: ManagedAgentRow): readonly string[] => commandOf(row).relay_urls

const ORDER: readonly ManagedPhase[] = [
  'requested',
  'provisioning',
  'booting',
  'waiting_for_service_ready',
  'waiting_for_keypackage_publish',
]

function isFurther(from: ManagedPhase, to: ManagedPhase): boolean {
  return ORDER.indexOf(to) > ORDER.indexOf(from)
}
