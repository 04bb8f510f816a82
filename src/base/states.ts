/**
 * The life of everything that is stored with a state: which step leads where, pure. The store refuses every other step
 * (`Steps` in store/table.ts). The states stand in the database and on the wire alike.
 */

/** For each state those that may follow it. */
export type StepsOf<S extends string> = Readonly<Record<S, readonly S[]>>

export const canStep = <S extends string>(steps: StepsOf<S>, from: S, to: S): boolean => steps[from].includes(to)

export const statesOf = <S extends string>(steps: StepsOf<S>): S[] => Object.keys(steps) as S[]

/** The states that may become `to`. */
export const statesBefore = <S extends string>(steps: StepsOf<S>, to: S): S[] => statesOf(steps).filter((from) => canStep(steps, from, to))

/** Fixes the states of a table of steps by its keys. */
export const stepsOf = <const T extends Readonly<Record<keyof T, readonly (keyof T & string)[]>>>(steps: T): StepsOf<keyof T & string> =>
  steps

/**
 * A job that others ordered here.
 *
 *            +-> refused <-----+
 *            |                 | (token failed)
 *   received +-> quoted -------+--> paid -----------+
 *            |     |  ^             ^ |             |
 *            |     v  (token        | |             v
 *            |  expired  unknown)   | |  +----> running -> ready -> delivered -> settled
 *            |     |                | |  |      |  |
 *            |     +-- (paid late) -+ |  |      |  +-> running (again after a restart)
 *            |                        |  |      v
 *            +-> queued --------------|--+   failed -> refunding <-> refunded
 *            |     |                  |         ^         ^
 *            |     +------------------+---------+         |
 *            +-> cancelled (kind 5 before running) -------+ (what was paid, or is paid later, goes back)
 *
 * `queued` waits for its turn without payment due, `paid` waits for its turn with the money in hand. `failed` and
 * `cancelled` are ends for a job that holds no money. Not drawn: a result that no relay takes for days fails (ready ->
 * failed), and money that reaches a job that was refused or settled goes back (-> refunding).
 */
export const JOB_STEPS = stepsOf({
  received: ['refused', 'queued', 'quoted', 'paid', 'cancelled'],
  refused: ['refunding'],
  queued: ['running', 'failed', 'cancelled'],
  quoted: ['paid', 'expired', 'refused', 'cancelled'],
  expired: ['paid'],
  paid: ['running', 'failed', 'cancelled'],
  running: ['running', 'ready', 'failed'],
  ready: ['delivered', 'failed'],
  delivered: ['settled'],
  settled: ['refunding'],
  failed: ['refunding'],
  refunding: ['refunded'],
  refunded: ['refunding'],
  cancelled: ['refunding'],
})
export type JobState = keyof typeof JOB_STEPS

/**
 * A lease that others rent here.
 *
 *   quoted --> paid --> active --> ended
 *     |          |        |          |
 *     v          +--------+----------+--> refunding <-> refunded (again for what is paid after that)
 *   expired --> paid (late) ------------> refunding
 */
export const LEASE_STEPS = stepsOf({
  quoted: ['paid', 'expired'],
  expired: ['paid'],
  paid: ['active', 'ended', 'refunding'],
  active: ['active', 'ended', 'refunding'],
  ended: ['refunding'],
  refunding: ['refunded'],
  refunded: ['refunding'],
})
export type LeaseState = keyof typeof LEASE_STEPS

/**
 * A runtime of this node.
 *
 *                                     (instance lost, unhealthy)
 *                                     +------------- unreachable
 *                                     v                ^  |   |
 *   requested --> provisioning ---> ready -------------+--+   |
 *       |              |  |  ^        |  \                |   |
 *       |   (a restart |  |  +--------+   \ (one-shot     |   |
 *       |    takes it  |  | (recovering)   \  ended)      |   |
 *       |    up again) |  |            |    v             |   |
 *       |              |  +--> failed <+-- ended          |   |
 *       |              |        |      |    |             |   |
 *       |              +--------+------+----+-------------+---+
 *       v                       v
 *     gone <---------------- teardown (again after a restart)
 *
 * `requested` has no instance and may wait for payment; from `provisioning` on there may be one, and only `teardown`
 * leads out. `failed` still has something to tear down, `ended` is a finished one-shot run that is kept for a look.
 */
export const RUNTIME_STEPS = stepsOf({
  requested: ['provisioning', 'gone'],
  provisioning: ['provisioning', 'ready', 'ended', 'failed', 'teardown'],
  ready: ['provisioning', 'unreachable', 'ended', 'failed', 'teardown'],
  unreachable: ['provisioning', 'ready', 'ended', 'failed', 'teardown'],
  ended: ['teardown'],
  failed: ['provisioning', 'teardown'],
  teardown: ['teardown', 'gone'],
  gone: [],
})
export type RuntimeState = keyof typeof RUNTIME_STEPS

/**
 * A purchase, which is a job of others.
 *
 *   preparing -> requested -> offered <-> paying -> paid -> processing -> completed
 *       |            |           |           |        |         |
 *       |            |           |           '--------+---------+--> failed --> refunded
 *       |            +-----------+--> timeout, cancelled            (a result or a refund that
 *       '--> failed                     comes late is still taken)
 *
 * A free job goes from requested to processing or completed at once; one that is worked at may still ask for its price. A purchase
 * that carries its token is `paid` from the moment the request is fixed. Once paid, only the provider that was paid can end it.
 */
export const PURCHASE_STEPS = stepsOf({
  preparing: ['requested', 'paid', 'failed'],
  requested: ['offered', 'processing', 'completed', 'failed', 'timeout', 'cancelled'],
  offered: ['paying', 'processing', 'completed', 'failed', 'timeout', 'cancelled'],
  paying: ['paid', 'offered', 'failed', 'completed', 'refunded'],
  paid: ['processing', 'completed', 'failed', 'refunded'],
  processing: ['offered', 'paying', 'completed', 'failed', 'timeout', 'cancelled', 'refunded'],
  completed: [],
  failed: ['completed', 'refunded'],
  timeout: ['completed', 'refunded'],
  cancelled: ['completed', 'refunded'],
  refunded: [],
})
export type PurchaseStatus = keyof typeof PURCHASE_STEPS

/** Nothing more is expected of a purchase, though a late answer would still be taken. */
export const isPurchaseOver = (status: PurchaseStatus): boolean =>
  ['completed', 'failed', 'timeout', 'cancelled', 'refunded'].includes(status)

/**
 * A rental, which is one command to the machines of a node, with what was paid for it.
 *
 *   asked ----> paying ----> paid
 *     |          |  ^          |
 *     |          |  '-----.    |      (what was refused is asked for again, and paid then)
 *     v          v        |    v
 *     answered <-----> refused        (asked again under the same key, a node may say something else)
 *
 * What was paid is in its own column: an answer may come before the payment is known.
 */
export const RENTAL_STEPS = stepsOf({
  asked: ['paying', 'answered', 'refused'],
  paying: ['paying', 'paid', 'answered', 'refused'],
  paid: ['answered', 'refused'],
  answered: ['answered', 'refused'],
  refused: ['paying', 'answered', 'refused'],
})
export type RentalState = keyof typeof RENTAL_STEPS

/**
 * An agent: its state is its runway, the days of ticks that its balance pays for (host/lifecycle.ts).
 *
 *                  .---------------------- funded, thresholds -----------------------.
 *                  v                                                                 |
 *   spawning --> active <--> low_balance <--> hibernating <--> dormant --------------'
 *                  |             |                |               |
 *                  '-------------+-------.--------+---------------'
 *                                        v
 *                                      paused  (by the owner; resumes where the runway then says)
 *
 *   active       a tick each heartbeat, and for mentions, DMs and zaps
 *   low_balance  the heartbeat is twice as long
 *   hibernating  ticks only for zaps and funding
 *   dormant      no tick can be paid
 */
export const AGENT_STEPS = stepsOf({
  spawning: ['active', 'low_balance', 'hibernating', 'dormant'],
  active: ['low_balance', 'hibernating', 'dormant', 'paused'],
  low_balance: ['active', 'hibernating', 'dormant', 'paused'],
  hibernating: ['active', 'low_balance', 'dormant', 'paused'],
  dormant: ['active', 'low_balance', 'hibernating', 'paused'],
  paused: ['active', 'low_balance', 'hibernating', 'dormant'],
})
export type AgentState = keyof typeof AGENT_STEPS

/**
 * What an agent wants to do.
 *
 *   planned --> claimed --> published, done, failed, unknown --> done, failed
 *      |  |        ^
 *      |  |        '------------ approved --> refused, failed  (policy is asked once more)
 *      |  '--> waiting ------------^
 *      |          '--> refused     (denied, or nobody answered in time)
 *      '--> done, refused, failed
 */
export const ACTION_STEPS = stepsOf({
  planned: ['waiting', 'claimed', 'published', 'done', 'refused', 'failed', 'unknown'],
  waiting: ['approved', 'refused'],
  approved: ['claimed', 'published', 'done', 'refused', 'failed', 'unknown'],
  claimed: ['published', 'done', 'refused', 'failed', 'unknown'],
  unknown: ['published', 'done', 'refused', 'failed', 'unknown'],
  published: [],
  done: [],
  refused: [],
  failed: [],
})
export type ActionState = keyof typeof ACTION_STEPS

/** What waits for its owner. */
export const APPROVAL_STEPS = stepsOf({ pending: ['approved', 'denied', 'expired'], approved: [], denied: [], expired: [] })
export type ApprovalState = keyof typeof APPROVAL_STEPS

/**
 * A money operation, which is one request to one mint.
 *
 *   prepared ──> submitted ──> completed
 *      |             |  ^──── replanned (refused for an old keyset, or used outputs) ──> prepared
 *      |             |──> failed          only a refusal of that very request, with the inputs seen unspent
 *      |             '──> unknown ──> completed | failed | submitted (the same bytes again) | prepared (replanned)
 *      '──> completed (a send that needs no swap)
 *
 * prepared: exact request, blinded outputs and blinding data stored, inputs reserved, value and budget held.
 * A network fault, a timeout or a 5xx is unknown, never failed.
 */
export const OPERATION_STEPS = stepsOf({
  prepared: ['submitted', 'completed'],
  submitted: ['completed', 'failed', 'unknown', 'prepared'],
  unknown: ['completed', 'failed', 'submitted', 'unknown', 'prepared'],
  completed: [],
  failed: [],
})
export type OperationState = keyof typeof OPERATION_STEPS

/**
 * Sats on their way from one mint to another of the same wallet: an invoice of the one that the other pays.
 *
 *   receiving --> planned --> paid --> arrived
 *       |            |          |
 *       '--> failed <'          '--> lost
 *
 * receiving: a token of a foreign mint is swapped, so that it is ours there. failed: nothing left the mint that was to pay, but fees
 * of swaps. paid: the one says that it paid, the other has not issued the ecash yet. lost: the one gives no proof of it, and the other
 * says until its invoice is over that nothing came.
 */
export const PURSE_MOVE_STEPS = stepsOf({
  receiving: ['planned', 'failed'],
  planned: ['paid', 'failed'],
  paid: ['arrived', 'lost'],
  arrived: [],
  failed: [],
  lost: [],
})
export type PurseMoveState = keyof typeof PURSE_MOVE_STEPS

/**
 * A managed agent: it runs in a runtime and is talked to in a session.
 *
 *   requested -> provisioning -> booting -> waiting_for_service_ready -> waiting_for_keypackage_publish -> ready
 *       |             |             |                   |                              |                   |
 *       +-------------+-------------+---------+---------+------------------------------+                   |
 *                                             v                                                            |
 *                                          failed ------------------------> ending <-----------------------+  (any, by its owner)
 *                                                                              v
 *                                                                            ended
 *
 * A phase may be passed over: a substrate tells what it can tell; and one may last, with more to say. What exists of it somewhere is
 * told apart (`Cleanup`).
 */
export const MANAGED_STEPS = stepsOf({
  requested: ['requested', 'provisioning', 'booting', 'waiting_for_service_ready', 'waiting_for_keypackage_publish', 'failed', 'ending'],
  provisioning: ['provisioning', 'booting', 'waiting_for_service_ready', 'waiting_for_keypackage_publish', 'failed', 'ending'],
  booting: ['booting', 'waiting_for_service_ready', 'waiting_for_keypackage_publish', 'failed', 'ending'],
  waiting_for_service_ready: ['waiting_for_service_ready', 'waiting_for_keypackage_publish', 'failed', 'ending'],
  waiting_for_keypackage_publish: ['waiting_for_keypackage_publish', 'ready', 'failed', 'ending'],
  ready: ['ending'],
  failed: ['ending'],
  ending: ['ending', 'ended'],
  ended: [],
})
export type ManagedPhase = keyof typeof MANAGED_STEPS

/** Of what a managed agent has somewhere: nothing yet, something to remove, left on purpose, removed, or for the owner to remove by hand. */
export type Cleanup = 'none' | 'due' | 'kept' | 'done' | 'manual'

/**
 * An invoice of the owner's own Lightning wallet, which alone knows when it is paid; late payments count.
 *
 *   unpaid <-> unpaid, --> expired --> closed
 *      '--> settled <-------'
 */
export const NWC_INVOICE_STEPS = stepsOf({
  unpaid: ['unpaid', 'expired', 'settled', 'closed'],
  expired: ['expired', 'settled', 'closed'],
  settled: [],
  closed: [],
})
export type NwcInvoiceState = keyof typeof NWC_INVOICE_STEPS

/** A payment from there: sent in the commit that makes it, and unknown until the wallet says what became of it. */
export const NWC_PAYMENT_STEPS = stepsOf({
  unknown: ['unknown', 'completed', 'failed'],
  completed: [],
  failed: [],
})
export type NwcPaymentState = keyof typeof NWC_PAYMENT_STEPS

/** A private message of the node: it waits until relays of the recipient are known. */
export const LETTER_OUT_STEPS = stepsOf({ waiting: ['sending', 'refused'], sending: ['sent', 'refused'], sent: [], refused: [] })
export type LetterOutState = keyof typeof LETTER_OUT_STEPS

/** One to the node, where it is kept at all: it waits while whoever takes it cannot. */
export const LETTER_IN_STEPS = stepsOf({ waiting: ['taken', 'given_up'], taken: [], given_up: [] })
export type LetterInState = keyof typeof LETTER_IN_STEPS

/**
 * A payout of a standing rule. It is `begun` before its address is asked and before anything is spent; what nobody can say yet is
 * unknown until the wallet can.
 *
 *   begun --> paid
 *     |  \      ^
 *     |   '-> unknown --> failed
 *     '-----------------> failed
 */
export const PAYOUT_STEPS = stepsOf({
  begun: ['unknown', 'paid', 'failed'],
  unknown: ['paid', 'failed'],
  paid: [],
  failed: [],
})
export type PayoutState = keyof typeof PAYOUT_STEPS

/**
 * A nutzap that came for a key of this home: claimed by its event, then redeemed at its mint, then told to whom it is for.
 *
 *   claimed <-> claimed, --> redeemed --> told
 *      '--> refused
 */
export const NUTZAP_STEPS = stepsOf({
  claimed: ['claimed', 'redeemed', 'refused'],
  redeemed: ['redeemed', 'told'],
  told: [],
  refused: [],
})
export type NutzapState = keyof typeof NUTZAP_STEPS

/** A payment request of ours. What is paid on one that is not open any more is kept too, and told. */
export const REQUEST_STEPS = stepsOf({
  open: ['paid', 'cancelled'],
  paid: ['cancelled'],
  cancelled: [],
})
export type RequestState = keyof typeof REQUEST_STEPS

/** A token that came in on one: claimed by its proofs, then swapped into the wallet or refused. */
export const REQUEST_PAYMENT_STEPS = stepsOf({
  claimed: ['claimed', 'received', 'refused'],
  received: [],
  refused: [],
})
export type RequestPaymentState = keyof typeof REQUEST_PAYMENT_STEPS

/**
 * A payment of ours on a request of others.
 *
 *   claimed --> sending --> delivered
 *      |                |
 *      '----------------'--> undelivered (its token is the owner's to take back)
 *
 * The token is made once, before sending; one that is handed over by hand is delivered at once.
 */
export const REQUEST_SEND_STEPS = stepsOf({
  claimed: ['claimed', 'sending', 'delivered', 'undelivered'],
  sending: ['sending', 'delivered', 'undelivered'],
  delivered: [],
  undelivered: [],
})
export type RequestSendState = keyof typeof REQUEST_SEND_STEPS

/** One that goes out: fixed before its token is made, sent in the commit that has its event. What failed may be tried again. */
export const NUTZAP_SEND_STEPS = stepsOf({ fixed: ['sent', 'failed'], failed: ['sent'], sent: [] })
export type NutzapSendState = keyof typeof NUTZAP_SEND_STEPS

/** Something that is wrong: `on` once it held for its time, `over` once it was gone for its time. One that never held is forgotten, or over again. */
export const ALERT_STEPS = stepsOf({ held: ['on', 'over'], on: ['fading'], fading: ['on', 'over'], over: ['held'] })
export type AlertState = keyof typeof ALERT_STEPS
