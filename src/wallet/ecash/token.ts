/** Reads Cashu tokens that strangers send: caps before any curve work, one mint, one unit (NUT-00). */
import { Amount, getDecodedToken, getEncodedToken, getTokenMetadata } from '@cashu/cashu-ts'
import { PylonError } from '../../base/errors.ts'
import type { TokenProof } from './crypto.ts'

/** A token far above this is no payment for a job. */
const MAX_TOKEN_CHARS = 64 * 1024
const MAX_PROOFS = 200
const MAX_SECRET_CHARS = 1024

export interface TokenHead {
  /** Normalised. */
  readonly mintUrl: string
  readonly unit: string
  readonly faceSats: bigint
  /** The token without prefix or spaces. */
  readonly text: string
}

/** Mint, unit and face value, with nothing but a bounded decode. @throws token_invalid */
export function readTokenHead(input: string): TokenHead {
  const text = input.trim().replace(/^(?:web\+)?cashu:(?:\/\/)?/i, '')
  if (text.length > MAX_TOKEN_CHARS) throw invalid(`it is longer than ${MAX_TOKEN_CHARS} characters`)
  if (!/^cashu[AB][A-Za-z0-9_=+/-]+$/.test(text)) throw invalid('it is no cashuA or cashuB token')
  try {
    const { mint, unit, amount, incompleteProofs } = getTokenMetadata(text)
    if (incompleteProofs.length === 0 || incompleteProofs.length > MAX_PROOFS)
      throw invalid(`it has ${incompleteProofs.length} proofs, not 1 to ${MAX_PROOFS}`)
    const faceSats = amount.toBigInt()
    if (faceSats <= 0n || faceSats > BigInt(Number.MAX_SAFE_INTEGER)) throw invalid('its amount is out of range')
    return { mintUrl: normaliseMintUrl(mint), unit, faceSats, text }
  } catch (error) {
    if (error instanceof PylonError) throw error
    throw invalid('it cannot be decoded, or mixes mints')
  }
}

/** The proofs, with short keyset ids expanded to one of `keysetIds` (of its mint). @throws token_invalid */
export function readTokenProofs(head: TokenHead, keysetIds: readonly string[]): TokenProof[] {
  let proofs: TokenProof[]
  try {
    proofs = getDecodedToken(head.text, keysetIds).proofs.map(({ id, amount, secret, C, dleq, p2pk_e }) => {
      if (p2pk_e !== undefined) throw invalid('it uses blinded locks (NUT-28), which are not supported')
      return { id, amount: Amount.from(amount).toNumber(), secret, C, ...(dleq === undefined ? {} : { dleq }) }
    })
  } catch (error) {
    if (error instanceof PylonError) throw error
    throw invalid('its keysets are not known at its mint, or a proof is malformed')
  }
  for (const proof of proofs) {
    if (!keysetIds.includes(proof.id)) throw invalid(`its keyset ${proof.id.slice(0, 20)} is not one of its mint in sats`)
    if (proof.secret.length > MAX_SECRET_CHARS) throw invalid('a secret is too long')
    if (!/^0[23][0-9a-f]{64}$/.test(proof.C)) throw invalid('a signature is no point on the curve')
    if (!Number.isSafeInteger(proof.amount) || proof.amount <= 0) throw invalid('an amount is out of range')
  }
  if (new Set(proofs.map((proof) => proof.secret)).size !== proofs.length) throw invalid('it has the same proof twice')
  return proofs
}

/** cashuB. */
export function encodeToken(mintUrl: string, proofs: readonly TokenProof[]): string {
  return getEncodedToken({
    mint: mintUrl,
    unit: 'sat',
    proofs: proofs.map(({ id, amount, secret, C, dleq }) => ({
      id,
      amount: Amount.from(amount),
      secret,
      C,
      ...(dleq === undefined ? {} : { dleq: { ...dleq } }),
    })),
  })
}

/** One form for one mint: lower-case host, no trailing slash, no query. @throws token_invalid */
export function normaliseMintUrl(url: string): string {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    throw invalid('its mint is no URL')
  }
  if (parsed.protocol !== 'https:' && parsed.protocol !== 'http:') throw invalid('its mint is no http URL')
  return `${parsed.protocol}//${parsed.host}${parsed.pathname.replace(/\/+$/, '')}`
}

function invalid(why: string): PylonError {
  return new PylonError('token_invalid', `The token cannot be used: ${why}.`)
}
