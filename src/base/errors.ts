/** The one registry of error codes, and the one error class. Every code is listed in docs/errors.md (a test checks it). */

interface ErrorDefinition {
  /** HTTP status on the control socket. */
  readonly status: number
  /** Whether the same call may succeed later without a change by the caller. */
  readonly retryable: boolean
  /** What it means and what to do next, in one sentence: docs/errors.md prints it. */
  readonly doc: string
}

const e = (status: number, doc: string, retryable = false): ErrorDefinition => ({ status, retryable, doc })

export const ERRORS = {
  // Usage and transport
  usage: e(400, 'The command line or request is malformed; the message names the field.'),
  invalid_request: e(400, 'A field of the request is missing or wrong; details lists every problem.'),
  not_found: e(404, 'There is no such route; docs/control-api.md lists them.'),
  method_not_allowed: e(405, 'The route exists and takes another method; details.allow lists them.'),
  forbidden_origin: e(403, 'The control socket refuses requests that come from a browser.'),
  request_too_large: e(413, 'The request body is over the limit; send less.'),
  idempotency_key_required: e(400, 'This call spends money; send an Idempotency-Key header.'),
  idempotency_conflict: e(409, 'The same Idempotency-Key was used with another request; use a new key.'),
  timeout: e(504, 'The answer did not come in time; look at the state before trying again.', true),
  cancelled: e(499, 'The caller gave up before the work was done.'),
  internal: e(500, 'A fault in Pylon; please report it with the log lines around it.'),
  // Node and daemon
  not_running: e(503, 'No node runs for this home; start it with: pylon start.', true),
  already_running: e(409, 'Another process holds this home; pylon status shows it.'),
  start_failed: e(500, 'The daemon ended before it was ready; the message has its own words.'),
  stop_failed: e(500, 'The daemon did not stop in time; try: pylon stop --force.', true),
  shutting_down: e(503, 'The node is shutting down; start it again with: pylon start.', true),
  locked: e(423, 'The keys are locked; run: pylon unlock.'),
  passphrase_wrong: e(403, 'The passphrase (or key) does not open this identity or backup; try again.'),
  identity_missing: e(404, 'This home has no identity; run: pylon init.'),
  identity_exists: e(409, 'This home has an identity already; --force replaces it after moving the old one aside.'),
  identity_invalid: e(400, 'The words or the identity file are not valid; check spelling and order.'),
  version_mismatch: e(409, 'Client and node are of different versions; run: pylon restart.'),
  home_unusable: e(500, 'The home directory cannot be used; the message says why (path too long, rights, no space).'),
  port_taken: e(409, 'A port that the sandbox had chosen is taken by another program; free it or remove the stored port.'),
  sandbox_failed: e(500, 'The sandbox process did not become ready; its log says why.', true),
  demo_failed: e(500, 'A step of the demo did not happen; the message says which.'),
  // Configuration
  config_invalid: e(400, 'config.toml has a wrong value; the message names the key and what is allowed.'),
  config_unknown_key: e(404, 'There is no such configuration key; run: pylon config show.'),
  // Store
  database_newer: e(500, 'The database was written by a newer Pylon; install that version or restore a backup.'),
  database_corrupt: e(500, 'The database does not open; restore a backup with: pylon restore PATH.'),
  database_busy: e(503, 'Another program holds a lock on the database; end it, and the node goes on.', true),
  disk_full: e(507, 'The disk is full; free space and the node goes on by itself.', true),
  conflict: e(409, 'The thing is not in a state that allows this; the message names the state.'),
  backup_failed: e(500, 'The backup could not be written; the message says why.'),
  backup_damaged: e(409, 'The backup was changed or is not whole; nothing was touched. Use another one.'),
  restore_refused: e(409, 'The restore was refused; the message says why and how to go on.'),
  // Nostr
  relay_unreachable: e(502, 'The relay does not answer; check the URL and the network.', true),
  relay_refused: e(502, 'Every relay refused the event; the message has their words: mend what they name, or use other relays.'),
  relay_invalid: e(400, 'A relay URL must be ws:// or wss:// and nothing else.'),
  event_invalid: e(400, 'The event has a wrong shape, id or signature.'),
  pubkey_invalid: e(400, 'Expected an npub or 64 hex digits.'),
  bunker_invalid: e(
    400,
    'The string of a remote signer (bunker:// or nostrconnect://) cannot be used; the message says why. Copy it whole from the app.',
  ),
  bunker_unreachable: e(502, 'The bunker that holds the key does not answer; what is to be signed waits, the node asks again.', true),
  bunker_refused: e(502, 'The bunker that holds the key refused; the message has its words: allow it there.'),
  bunker_approval: e(403, 'The bunker wants to be told by you first: open the address in the message, then try again.', true),
  bunker_answer_invalid: e(
    502,
    'The bunker answered with something else than it was asked for (another event, key, id or signature, or garbage); nothing of it was used.',
  ),
  bunker_key_changed: e(
    409,
    'The bunker signs for another key than when it was connected; nothing is signed by it until it names the first one again.',
  ),
  bunker_unable: e(409, 'The key is held by a bunker elsewhere, and this needs a key of this home; the message says what.'),
  decrypt_failed: e(400, 'The content could not be decrypted with this key.'),
  address_refused: e(403, 'The address is not allowed (private, or not the network of this node).'),
  fetch_failed: e(502, 'An address from outside did not give a usable answer.', true),
  // Wallet
  wallet_not_found: e(404, 'There is no such wallet; use node, customer or the name of an agent.'),
  amount_invalid: e(400, 'The amount must be a whole positive number within range.'),
  insufficient_funds: e(402, 'The wallet does not hold enough; fund it with: pylon wallet invoice (in the sandbox: pylon wallet fund).'),
  funds_owed: e(409, 'The sats belong to customers until their jobs and leases are settled; wait, or add --include-owed.', true),
  no_mint: e(409, 'No mint is configured; add one with: pylon wallet mints add URL.'),
  mint_not_allowed: e(
    403,
    'The mint is not on the list; add it with: pylon wallet mints add URL, or move its token: pylon wallet receive TOKEN --move.',
  ),
  mint_in_use: e(409, 'The mint still holds sats of this node; move them first.'),
  mint_moved: e(409, 'A mint of the list serves these keysets under another address; run: pylon wallet mints move OLD NEW.'),
  mint_cap_exceeded: e(409, 'The mint would hold more than its cap; raise the cap or use another mint.'),
  mint_unreachable: e(502, 'The mint does not answer; nothing is lost, the node asks again.', true),
  mint_rejected: e(502, 'The mint refused the request; the message has its reason.'),
  mint_incompatible: e(502, 'The mint lacks a NUT that Pylon needs; the message names it.'),
  token_invalid: e(400, 'The token cannot be read.'),
  token_spent: e(409, 'The token was already spent.'),
  token_locked: e(403, 'The token is locked to another key.'),
  token_bare: e(400, 'A token in a public request must be locked to the key in the announcement; or encrypt the request.'),
  token_amount: e(400, 'The token is worth less than needed, after the mint fee.'),
  destination_invalid: e(400, 'What should be paid is no invoice, Lightning address or payment request that can be; the message says why.'),
  invoice_invalid: e(400, 'The invoice cannot be read, has no amount, or has another amount than agreed.'),
  invoice_expired: e(410, 'The invoice has expired; ask for a new one.'),
  payment_failed: e(402, 'The payment was refused and nothing was spent.'),
  payment_in_progress: e(
    409,
    'This home is paying this invoice already, and pays it once; details.operation_id names the payment: wait for its outcome.',
    true,
  ),
  invoice_paid: e(409, 'This home has paid this invoice before; details.operation_id names the payment, nothing more was spent.'),
  payment_unknown: e(202, 'The outcome of the payment is not known yet; the sats are held until it is.', true),
  payment_undelivered: e(
    502,
    'The token was made and who asked for it did not take it; take it back with pylon wallet reclaim and the id in details.operation_id.',
  ),
  budget_exceeded: e(403, 'The budget does not allow this; pylon agent show NAME prints it.'),
  nwc_invalid: e(400, 'The connection string of the wallet (nostr+walletconnect://) cannot be read; the message says why.'),
  nwc_revoked: e(403, 'The connection to the wallet was revoked; make another with: pylon wallet nwc create.'),
  owner_missing: e(409, 'There is no owner to write to; set your own key: pylon config set owner.npub npub1...'),
  spend_refused: e(403, 'The policy of this home refuses the spend: whom it pays, or by which rail; the message says which rule.'),
  nwc_missing: e(404, 'No Lightning wallet is connected; connect yours with: pylon wallet connect -'),
  nwc_unreachable: e(502, 'The connected Lightning wallet does not answer; what is open stays open, the node asks again.', true),
  nwc_refused: e(502, 'The connected Lightning wallet refused; the message has its words, details.nwc_code its code.'),
  payout_missing: e(404, 'This wallet has no payout; set one with: pylon wallet payout set ADDRESS --above N --keep M'),
  payout_address_changed: e(
    409,
    'The address of a payout answers as another than when it was set; nothing is sent there until you look and set it again: pylon wallet payout set.',
  ),
  nutzap_unavailable: e(
    409,
    'The recipient takes no nutzaps at a mint of the list; the message says which it names: add one, or zap its Lightning address.',
  ),
  lnurl_invalid: e(502, 'The LNURL server gave an answer that may not be paid; the message says why.'),
  faucet_unavailable: e(409, 'Only the sandbox has a faucet; on the open network use: pylon wallet invoice.'),
  // Jobs, provider side and customer side
  job_not_found: e(404, 'There is no such job; run: pylon jobs list.'),
  kind_unsupported: e(400, 'No backend serves this kind; pylon status lists the kinds.'),
  input_invalid: e(400, 'An input of the job is missing, too large or of a type that this kind does not take.'),
  param_invalid: e(400, 'A parameter of the job is wrong; the message names it.'),
  bid_too_low: e(402, 'The bid is below the price.'),
  job_expired: e(410, 'The job expired before it could be served.'),
  rate_limited: e(429, 'Too many jobs from this key; try again later.', true),
  overloaded: e(503, 'The queue is full; try again later.', true),
  backend_unavailable: e(503, 'The backend that serves this kind is not reachable; pylon status says which and why.', true),
  backend_failed: e(502, 'The backend failed on this job; a payment is refunded.'),
  output_too_large: e(413, 'The result is over the output limit.'),
  no_offer: e(404, 'No provider answered in time; try another relay, kind or provider.', true),
  price_too_high: e(402, 'The price is over --max-sats or --bid-sats.'),
  job_failed: e(502, 'The provider reported an error; a refund is redeemed by itself.'),
  job_not_cancellable: e(409, 'The job is past the point where it can be cancelled.'),
  // Runtimes: the contract
  spec_invalid: e(400, 'The RuntimeSpec has a wrong or unknown field; details.field names it.'),
  spec_empty_field: e(400, 'A field of the RuntimeSpec that must say something is blank; details.field names it.'),
  spec_invalid_path: e(400, 'A path of the RuntimeSpec cannot be used; details has field, path and reason.'),
  spec_duplicate_mount_guest_path: e(400, 'Two mounts of the RuntimeSpec have the same guest path.'),
  spec_duplicate_device: e(400, 'Two mounts of the RuntimeSpec come to the same device name; choose another guest path.'),
  spec_read_only_mount: e(400, 'A read_only_snapshot mount must have mode read_only.'),
  spec_invalid_glob: e(400, 'A pattern in artifact_globs must be relative and stay below artifacts_dir.'),
  spec_mount_refused: e(403, 'The substrate may not mount this source; use a volume name, or a path that the owner allows.'),
  guest_request_invalid: e(400, 'What the guest was told to run is malformed; the message names the file and field.'),
  lifecycle_invalid: e(502, 'A lifecycle file of a guest is malformed; the message names the file and line.'),
  runtime_gone: e(410, 'The instance of this runtime is no more; provision a new one.'),
  runtime_unreachable: e(503, 'The substrate or the guest does not answer now; try again, then: pylon runtime recover.', true),
  runtime_failed: e(502, 'The substrate or the guest refused, failed or gave a wrong answer; the message has its words.'),
  runtime_unsupported: e(409, 'This substrate cannot do that; pylon doctor says what each one can.'),
  runtime_not_found: e(404, 'There is no such runtime, or it is not yours; run: pylon runtime list.'),
  control_refused: e(502, 'The node that was asked refused the command; details has its code (docs/control-plane.md) and hint.'),
  // Agents
  agent_not_found: e(404, 'There is no such agent; run: pylon agent list.'),
  agent_exists: e(409, 'There is an agent of this name or key already.'),
  agent_name_invalid: e(400, 'An agent name is 1 to 32 of a-z, 0-9, - and _.'),
  brain_invalid: e(400, 'The brain cannot run as configured; the message says what is missing.'),
  script_invalid: e(400, 'The rules file is wrong; the message names the rule and the field.'),
  brain_failed: e(502, 'The brain of the agent failed; its log says how.', true),
  action_invalid: e(400, 'The action is malformed; the message names the field.'),
  action_failed: e(502, 'The action of the agent failed; the message has its reason.'),
  action_refused: e(403, 'Policy refuses the action; the message says which rule.'),
  approval_not_found: e(404, 'There is no such approval; run: pylon approvals list.'),
  approval_decided: e(409, 'This was decided before, or has run out; the message says how it ended.'),
  task_not_found: e(404, 'There is no such task.'),
  // Sessions
  session_no_key_package: e(404, 'The peer has published no key package that can be used; it must run, and reach the same relays.', true),
  session_key_package_invalid: e(400, 'The key package of the peer cannot be used; the message says why.'),
  session_not_found: e(404, 'This key is in no such session.'),
  session_closed: e(410, 'The session is over: this key left it, was taken out, or its state cannot go on; begin a new one.'),
  session_refused: e(409, 'The group does not allow this, or no relay took the change; the message says why.', true),
  // Incus
  incus_unreachable: e(503, 'The Incus daemon or the cluster member does not answer; the message names the endpoint.', true),
  incus_untrusted: e(403, 'The Incus server presented another certificate than the pinned one, or does not trust ours.'),
  incus_forbidden: e(403, 'Incus does not allow this in the project; the message has its words, docs/incus.md the rights that are needed.'),
  incus_not_found: e(404, 'Incus has no such thing in the project.'),
  incus_image_missing: e(404, 'The image alias is not there; make one with: pylon runtime image build.'),
  incus_conflict: e(409, 'Incus has a thing of that name, is busy with it, or it changed meanwhile; ask again.', true),
  incus_no_space: e(507, 'The storage pool is full.', true),
  incus_limit_reached: e(503, 'A limit of the Incus project is reached; tear a runtime down or raise the limit.', true),
  incus_failed: e(502, 'Incus could not do it; the message has its words.'),
} as const satisfies Record<string, ErrorDefinition>

export type ErrorCode = keyof typeof ERRORS

export class PylonError extends Error {
  override readonly name = 'PylonError'
  readonly code: ErrorCode
  readonly details: Readonly<Record<string, unknown>>

  /** @param message what happened and what to do next; @param options.details machine-readable facts, no secrets. */
  constructor(code: ErrorCode, message: string, options: { details?: Record<string, unknown>; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.details = options.details ?? {}
  }

  get status(): number {
    return ERRORS[this.code].status
  }

  get retryable(): boolean {
    return ERRORS[this.code].retryable
  }

  toJSON(): { error: { code: ErrorCode; message: string; retryable: boolean; details: Readonly<Record<string, unknown>> } } {
    return { error: { code: this.code, message: this.message, retryable: this.retryable, details: this.details } }
  }
}

export function isPylonError(error: unknown, code?: ErrorCode): error is PylonError {
  return error instanceof PylonError && (code === undefined || error.code === code)
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** What to show for anything that was thrown: a PylonError as it is, a full disk by its name, all else as `internal`. */
export function toPylonError(error: unknown): PylonError {
  if (error instanceof PylonError) return error
  if ((error as { code?: unknown } | null | undefined)?.code === 'ENOSPC') {
    return new PylonError('disk_full', 'The disk is full: nothing was changed; free space and try again.', { cause: error })
  }
  return fileError(error) ?? new PylonError('internal', messageOf(error), { cause: error })
}

/** What the system says of a file that is not as it should be; that is the owner's to mend, no fault of Pylon. */
const FILE_WORDS: Readonly<Record<string, string>> = {
  EACCES: 'this user may not do that there',
  EPERM: 'it belongs to another user, or may not be changed',
  EROFS: 'the file system is read-only',
  EISDIR: 'it is a folder where a file belongs',
  ENOTDIR: 'a part of the path is no folder',
  ENOENT: 'it is not there',
  EEXIST: 'something of that name is in the way',
  ENOTEMPTY: 'the folder is not empty',
  ENAMETOOLONG: 'the path is too long',
  ELOOP: 'its links go round in circles',
  EBUSY: 'the system is using it',
  EIO: 'the disk failed',
  EMFILE: 'too many files are open (ulimit -n)',
  ENFILE: 'too many files are open on this machine',
}

/** Undefined for anything that is no error of a file. @param path where the error does not name it */
export function fileError(error: unknown, path?: string): PylonError | undefined {
  const { code, syscall, path: named, dest } = (error ?? {}) as { code?: unknown; syscall?: unknown; path?: unknown; dest?: unknown }
  const words = typeof code === 'string' && Object.hasOwn(FILE_WORDS, code) ? FILE_WORDS[code] : undefined
  if (words === undefined || typeof syscall !== 'string' || /^(?:spawn|connect|listen|bind|kill)/.test(syscall)) return undefined
  const where = path ?? [named, dest].filter((one) => typeof one === 'string').join(' or ')
  return new PylonError('home_unusable', `${where === '' ? 'A file' : where} can't be used: ${words}.`, { cause: error })
}
