/** Inputs to text: what is given is taken, what is named (url, event, job) is fetched within bounds, or the error has a code. */
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import type { IdentifiedEvent, Nostr, NostrEvent, Subscription } from '../../nostr/types.ts'
import { getJob } from '../../store/selling/jobs.ts'
import type { Store } from '../../store/store.ts'
import type { Work } from '../backends/backend.ts'
import { htmlToText } from './html.ts'
import type { JobInput, Order } from './order.ts'

const FETCH_TIMEOUT_MS = 15_000
/** How long the result of another job is waited for. */
const JOB_WAIT_MS = 60_000

export interface ResolverDeps {
  readonly scope: Pick<Scope, 'clock'>
  readonly store: Store
  readonly nostr: Pick<Nostr, 'query' | 'listen' | 'relays'>
  readonly dialer: Pick<Dialer, 'fetch'>
  readonly maxInputBytes: () => number
}

export type Resolved = Pick<Work, 'input' | 'inputType'>

/** The text when all of it is in the request; undefined when something has to be fetched. */
export function givenText(order: Pick<Order, 'inputs'>): string | undefined {
  return order.inputs.every((input) => input.type === 'text') ? order.inputs.map((input) => input.data).join('\n\n') : undefined
}

export function inputTypeOf(order: Pick<Order, 'inputs'>): Work['inputType'] {
  const types = new Set(order.inputs.map((input) => input.type))
  return types.size > 1 ? 'mixed' : (order.inputs[0]?.type ?? 'text')
}

/** @throws input_invalid (not there, wrong type, too large), address_refused, fetch_failed, the signal's reason */
export async function resolveInputs(order: Order, deps: ResolverDeps, signal: AbortSignal): Promise<Resolved> {
  const texts = await Promise.all(order.inputs.map((input) => resolveOne(input, order, deps, signal)))
  const input = texts.join('\n\n')
  if (Buffer.byteLength(input) > deps.maxInputBytes()) {
    throw new PylonError('input_invalid', `The inputs are over ${deps.maxInputBytes()} bytes together.`)
  }
  return { input, inputType: inputTypeOf(order) }
}

function resolveOne(input: JobInput, order: Order, deps: ResolverDeps, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted()
  switch (input.type) {
    case 'text':
      return Promise.resolve(input.data)
    case 'url':
      return fetchText(input.data, deps, signal)
    case 'event':
      return fetchEvent(input, deps).then((event) => event.content)
    case 'job':
      return resultOf(input, order, deps, signal)
  }
}

async function fetchText(url: string, deps: ResolverDeps, signal: AbortSignal): Promise<string> {
  if (!/^https?:\/\//i.test(url)) throw new PylonError('input_invalid', 'An input of type url must be an http or https address.')
  const response = await deps.dialer.fetch(url, {
    timeoutMs: FETCH_TIMEOUT_MS,
    maxBytes: deps.maxInputBytes(),
    signal,
    namedByStranger: 'input',
    headers: { accept: 'text/plain, text/html, text/*, application/json;q=0.9' },
  })
  if (response.status !== 200) throw new PylonError('fetch_failed', `The input address answered ${response.status}.`)
  const type = (response.headers['content-type'] ?? 'text/plain').split(';')[0]?.trim().toLowerCase() ?? ''
  if (type === 'text/html' || type === 'application/xhtml+xml') return htmlToText(response.text)
  if (!type.startsWith('text/') && !/^application\/(?:[\w.-]+\+)?(?:json|xml|yaml)$/.test(type)) {
    throw new PylonError('input_invalid', `The input address has content of type ${type.slice(0, 60)}; only text is taken.`)
  }
  return response.text
}

function relaysFor(input: JobInput, deps: ResolverDeps): { relays: string[] } {
  const hint = input.relay !== undefined && /^wss?:\/\/\S{1,300}$/.test(input.relay) ? [input.relay] : []
  return { relays: [...new Set([...deps.nostr.relays, ...hint])] }
}

async function fetchEvent(input: JobInput, deps: ResolverDeps): Promise<NostrEvent> {
  const { events } = await deps.nostr.query([{ ids: [input.data] }], { ...relaysFor(input, deps), timeoutMs: FETCH_TIMEOUT_MS })
  const event = events.find((found) => found.id === input.data)
  if (event === undefined)
    throw new PylonError('input_invalid', `The input event ${input.data} is on none of the relays asked; give a relay hint.`)
  return event
}

/** The result of another job: our own from the database, others' from the relays, waited for. */
async function resultOf(input: JobInput, order: Order, deps: ResolverDeps, signal: AbortSignal): Promise<string> {
  const own = getJob(deps.store, input.data)
  if (own?.customerPubkey === order.customerPubkey && own.result !== null) return own.result
  const request = await fetchEvent(input, deps)
  if (request.kind < 5000 || request.kind > 5999) throw new PylonError('input_invalid', 'The input of type job is no job request.')
  const result = await waitForResult(input, request, deps, signal)
  if (result.tags.some((tag) => tag[0] === 'encrypted')) {
    throw new PylonError('input_invalid', 'The result of the input job is encrypted to another key; pass its text instead.')
  }
  return result.content
}

function waitForResult(input: JobInput, request: IdentifiedEvent, deps: ResolverDeps, signal: AbortSignal): Promise<NostrEvent> {
  const providers = request.tags.filter((tag) => tag[0] === 'p').map((tag) => tag[1])
  const isResult = (event: NostrEvent): boolean =>
    event.kind === request.kind + 1000 &&
    event.tags.some((tag) => tag[0] === 'e' && tag[1] === request.id) &&
    (providers.length === 0 || providers.includes(event.pubkey))
  let onAbort = () => {}
  let cancel = () => {}
  let opened: Promise<Subscription> | undefined
  return new Promise<NostrEvent>((resolve, reject) => {
    onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    cancel = deps.scope.clock.after(JOB_WAIT_MS, () =>
      reject(new PylonError('input_invalid', `The input job has no result after ${JOB_WAIT_MS / 1000} s.`)),
    )
    opened = deps.nostr.listen({
      filters: [{ kinds: [request.kind + 1000], '#e': [request.id] }],
      ...relaysFor(input, deps),
      onEvent: (event) => {
        if (isResult(event)) resolve(event)
      },
    })
    opened.catch(reject)
  }).finally(() => {
    cancel()
    signal.removeEventListener('abort', onAbort)
    opened?.then(
      (subscription) => subscription.close(),
      () => undefined,
    )
  })
}
