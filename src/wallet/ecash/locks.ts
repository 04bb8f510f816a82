/** Who may spend a locked coin (NUT-10, 11, 14): read from its secret, judged by the keys that we have. Pure. */
import { parseJson } from '../../base/json.ts'

export type Lock =
  | { readonly type: 'none' }
  | {
      readonly type: 'conditions'
      readonly kind: 'P2PK' | 'HTLC'
      /** x-only, each once: of these `nSigs` open it at any time; a hash lock wants its preimage besides. */
      readonly keys: readonly string[]
      readonly nSigs: number
      /** Unix seconds; undefined: for ever. */
      readonly locktime: number | undefined
      /** x-only, each once: of these `nSigsRefund` open it after the locktime. Without any, everybody may then. */
      readonly refundKeys: readonly string[]
      readonly nSigsRefund: number
      readonly sigAll: boolean
    }
  | { readonly type: 'unsupported'; readonly reason: string }

/** How a lock opens for us. */
export type Opening =
  | {
      readonly opens: true
      /** Whether everybody can spend it. */
      readonly forAll: boolean
      /** Our keys (x-only) that must sign. */
      readonly keys: readonly string[]
    }
  | { readonly opens: false; readonly reason: string }

/** Each at most once; whatever else stands in a secret has no meaning for its mint. */
const TAGS = ['sigflag', 'n_sigs', 'pubkeys', 'locktime', 'refund', 'n_sigs_refund'] as const
type Tags = Readonly<Partial<Record<(typeof TAGS)[number], readonly string[]>>>

const malformed = (what: string): Lock => ({ type: 'unsupported', reason: `its lock is malformed (${what})` })

export function lockOf(secret: string): Lock {
  const parsed = secret.startsWith('[') ? parseJson(secret) : undefined
  if (!Array.isArray(parsed) || typeof parsed[0] !== 'string' || typeof parsed[1] !== 'object' || parsed[1] === null)
    return { type: 'none' }
  const kind = parsed[0]
  if (kind !== 'P2PK' && kind !== 'HTLC') return { type: 'unsupported', reason: `it has a lock of the kind ${kind.slice(0, 20)}` }
  const { data, tags: list } = parsed[1] as { data?: unknown; tags?: unknown }
  const tags = readTags(list ?? [])
  if (typeof tags === 'string') return malformed(tags)
  const first = keyOf(data)
  if (kind === 'P2PK' && first === undefined) return malformed('its key')
  const flag = tags.sigflag?.[0] ?? 'SIG_INPUTS'
  if (flag !== 'SIG_INPUTS' && flag !== 'SIG_ALL') return malformed('its signature flag')
  const keys = keysOf([...(kind === 'P2PK' ? [data] : []), ...(tags.pubkeys ?? [])])
  const refundKeys = keysOf(tags.refund ?? [])
  const nSigs = countOf(tags.n_sigs)
  const nSigsRefund = countOf(tags.n_sigs_refund)
  if (nSigs === undefined || (tags.n_sigs !== undefined && nSigs > keys.length)) return malformed('n_sigs')
  if (nSigsRefund === undefined || (tags.n_sigs_refund !== undefined && nSigsRefund > refundKeys.length)) return malformed('n_sigs_refund')
  const locktime = tags.locktime?.[0]
  return {
    type: 'conditions',
    ...{ kind, keys, nSigs, refundKeys, nSigsRefund, sigAll: flag === 'SIG_ALL' },
    // What is no time never comes.
    locktime: locktime !== undefined && /^\d{1,12}$/.test(locktime) ? Number(locktime) : undefined,
  }
}

/** @param ours x-only keys that we can sign with */
export function openingFor(lock: Lock, ours: ReadonlySet<string>, nowS: number): Opening {
  if (lock.type === 'none') return { opens: true, forAll: true, keys: [] }
  if (lock.type === 'unsupported') return { opens: false, reason: lock.reason }
  const { kind, keys, nSigs, locktime, refundKeys, nSigsRefund } = lock
  const mine = keys.filter((key) => ours.has(key))
  const byKeys = kind === 'P2PK' && mine.length >= nSigs ? mine.slice(0, nSigs) : undefined
  const isOver = locktime !== undefined && locktime <= nowS
  // Signed all the same where we can: the mint's clock may be behind ours.
  if (isOver && refundKeys.length === 0) return { opens: true, forAll: true, keys: byKeys ?? [] }
  if (byKeys !== undefined) return { opens: true, forAll: false, keys: byKeys }
  const mineToRefund = refundKeys.filter((key) => ours.has(key))
  const canRefund = mineToRefund.length >= nSigsRefund && refundKeys.length > 0
  if (isOver && canRefund) return { opens: true, forAll: false, keys: mineToRefund.slice(0, nSigsRefund) }
  return { opens: false, reason: `${whyNot(lock, mine.length)}${later(locktime, nowS, refundKeys.length === 0, canRefund)}` }
}

function whyNot({ kind, nSigs, keys }: Lock & { type: 'conditions' }, mine: number): string {
  if (kind === 'HTLC') return 'it has a hash lock (HTLC), whose preimage we do not have'
  if (nSigs > 1) return `it needs ${nSigs} signatures, and ${mine} of its keys ${mine === 1 ? 'is' : 'are'} ours`
  return keys.length === 1 ? 'it is locked to another key' : 'it is locked to other keys'
}

function later(locktime: number | undefined, nowS: number, forAll: boolean, canRefund: boolean): string {
  if (locktime === undefined) return ''
  if (locktime <= nowS) return '; its locktime is over and only its refund keys open it'
  if (!forAll && !canRefund) return ''
  return ` until ${new Date(Math.min(locktime, 253_402_300_799) * 1000).toISOString().replace('.000', '')}`
}

/** What the tags say, or which of them is wrong. */
function readTags(value: unknown): Tags | string {
  if (!Array.isArray(value)) return 'its tags'
  const tags: { -readonly [K in keyof Tags]: Tags[K] } = {}
  for (const tag of value) {
    const name = TAGS.find((known) => Array.isArray(tag) && tag[0] === known)
    if (name === undefined) continue
    const values: unknown[] = (tag as unknown[]).slice(1)
    if (tags[name] !== undefined) return `the tag ${name} twice`
    if (!values.every((item) => typeof item === 'string' || typeof item === 'number')) return `the tag ${name}`
    tags[name] = values.map(String)
  }
  return tags
}

/** One signature where the tag is missing; undefined where it is no count. */
function countOf(values: readonly string[] | undefined): number | undefined {
  if (values === undefined) return 1
  return /^[1-9]\d{0,3}$/.test(values[0] ?? '') ? Number(values[0]) : undefined
}

/** x-only: a signature does not tell 02 from 03. */
function keyOf(value: unknown): string | undefined {
  return typeof value === 'string' && /^0[23][0-9a-f]{64}$/i.test(value) ? value.slice(2).toLowerCase() : undefined
}

/** What is no key opens nothing. */
const keysOf = (values: readonly unknown[]): string[] => [...new Set(values.flatMap((value) => keyOf(value) ?? []))]
