/**
 * Web Crypto for simulations. Its work is done by other threads: what is under way is known, so that time can wait for it, it ends in
 * the order in which it was begun, and new keys come from the chance of the process.
 */
import { createPrivateKey, createPublicKey } from 'node:crypto'

const METHODS = [
  'decrypt',
  'deriveBits',
  'deriveKey',
  'digest',
  'encrypt',
  'exportKey',
  'generateKey',
  'importKey',
  'sign',
  'verify',
] as const
/** PKCS 8 of a curve key, without its 32 bytes. */
const PKCS8 = { Ed25519: '302e020100300506032b657004220420', X25519: '302e020100300506032b656e04220420' }

type Work = (...args: unknown[]) => Promise<unknown>

export interface WatchedCrypto {
  /** What is under way; undefined where nothing is. */
  pending(): Promise<unknown> | undefined
  restore(): void
}

export function watchWebCrypto(): WatchedCrypto {
  const prototype = Object.getPrototypeOf(crypto.subtle) as Record<string, Work>
  const before = METHODS.map((name) => [name, prototype[name]] as const)
  let open = 0
  let last: Promise<unknown> = Promise.resolve()
  const inTurn = (work: Promise<unknown>): Promise<unknown> => {
    open++
    const former = last
    const turn = former.then(() => work).finally(() => open--)
    last = turn.catch(() => undefined)
    return turn
  }
  const original = new Map(before)
  const call = (name: string, args: unknown[]) => (original.get(name as 'sign') as Work).apply(crypto.subtle, args)
  for (const [name] of before) {
    prototype[name] = (...args) => inTurn(name === 'generateKey' ? generate(call, args) : call(name, args))
  }
  return {
    pending: () => (open === 0 ? undefined : last),
    restore: () => {
      for (const [name, work] of before) if (work !== undefined) prototype[name] = work
    },
  }
}

async function generate(call: (name: string, args: unknown[]) => Promise<unknown>, args: unknown[]): Promise<unknown> {
  const [algorithm, isExtractable, usages] = args as [string | { name: string }, boolean, KeyUsage[]]
  const name = typeof algorithm === 'string' ? algorithm : algorithm.name
  if (name !== 'Ed25519' && name !== 'X25519') return call('generateKey', args)
  const pkcs8 = Buffer.concat([Buffer.from(PKCS8[name], 'hex'), crypto.getRandomValues(new Uint8Array(32))])
  const spki = createPublicKey(createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })).export({ format: 'der', type: 'spki' })
  const isPublic = (usage: KeyUsage) => usage === 'verify'
  const privateKey = await call('importKey', ['pkcs8', pkcs8, algorithm, isExtractable, usages.filter((usage) => !isPublic(usage))])
  const publicKey = await call('importKey', ['spki', spki, algorithm, true, usages.filter(isPublic)])
  return { privateKey, publicKey }
}

type KeyUsage = 'sign' | 'verify' | 'deriveBits' | 'deriveKey'
