/**
 * Errands: single actions that somebody asks of an agent from outside its ticks, over the control socket. Each is a tick of its
 * own that is past its thinking, so policy, budgets and recovery are those of every action; its slot is the caller's key.
 */
import { PylonError } from '../base/errors.ts'
import { News } from '../base/news.ts'
import { randomUuid } from '../base/random.ts'
import type { Scope } from '../base/scope.ts'
import { type ActionRow, actionsOf, getAction } from '../store/agents/actions.ts'
import type { AgentRow } from '../store/agents/agents.ts'
import { claimErrand, getTick, tickOfSlot } from '../store/agents/ticks.ts'
import { type Action, parseAction } from './actions/action.ts'
import { parseLines } from './brains/grammar.ts'
import type { HostDeps } from './parts.ts'
import type { Scheduler } from './scheduler.ts'
import { type ActionView, viewAction } from './view.ts'

/** How long a caller waits to hear that a relay took what was published. */
const PUBLISH_WAIT_MS = 5000
/** What is kept of the asker's words beside the action. */
const THOUGHT = 'Asked for from outside.'

export interface ErrandView extends ActionView {
  readonly tick_number: number
}

export class Errands {
  readonly #deps: HostDeps
  readonly #scheduler: Scheduler
  readonly #scope: Scope
  readonly #outcomes: News

  constructor(deps: HostDeps, scheduler: Scheduler) {
    this.#deps = deps
    this.#scheduler = scheduler
    this.#scope = deps.scope.child('errands')
    this.#outcomes = new News(this.#scope)
  }

  /** Tells who waits for it what became of an action. */
  tell(actionId: string): void {
    this.#outcomes.tell(actionId)
  }

  /**
   * Does one action, after the tick that runs, and once for each key.
   * @param wanted an action, or a line of the grammar of models
   * @returns what became of it, refused and failed ones too @throws action_invalid, conflict, shutting_down
   */
  async run(agent: AgentRow, wanted: unknown, key: string): Promise<ErrandView> {
    const action = typeof wanted === 'string' ? actionIn(wanted) : parseAction(wanted)
    const { store, clock } = this.#deps
    const slot = `errand:${key}`
    if (tickOfSlot(store, agent.pubkey, slot) === undefined) {
      const planned = { id: randomUuid(this.#scope.random), type: action.type, params: action }
      const claim = (id: string) =>
        store.write(claimErrand({ id, agentPubkey: agent.pubkey, slot, thought: THOUGHT, action: planned, at: clock.now() }))
      await this.#scheduler.runErrand(agent.pubkey, claim)
    } else await this.#scheduler.idle(agent.pubkey)
    const tick = tickOfSlot(store, agent.pubkey, slot)
    const row = tick === undefined ? undefined : actionsOf(store, tick.id)[0]
    if (tick === undefined || row === undefined) throw new PylonError('internal', 'The action is gone.')
    return { ...viewAction(await this.#published(row)), tick_number: tick.number }
  }

  /** The action once its first relay has answered, or as it is after a while. */
  async #published(row: ActionRow): Promise<ActionRow> {
    const now = () => getAction(this.#deps.store, row.id) ?? row
    const isSent = getTick(this.#deps.store, row.tickId)?.state === 'done'
    if (isSent && now().state === 'claimed') await this.#outcomes.next(row.id, PUBLISH_WAIT_MS)
    return now()
  }
}

/** @throws action_invalid */
function actionIn(line: string): Action {
  const { actions, problems, thought } = parseLines(line)
  const [only, ...more] = actions
  if (only !== undefined && more.length === 0 && problems.length === 0 && thought === '') return parseAction(only)
  const why = problems[0] ?? (more.length > 0 ? 'it is more than one' : 'it begins with none of the words that docs/agents.md lists')
  throw new PylonError('action_invalid', `This is not one action: ${why}.`)
}
