/** Key packages: by which a key lets itself be brought into groups (RFC 9420 10, MIP-00). */
import {
  decode,
  defaultCredentialTypes,
  encode,
  generateKeyPackage,
  type KeyPackage,
  keyPackageDecoder,
  keyPackageEncoder,
  makeCustomExtension,
  makeKeyPackageRef,
  type PrivateKeyPackage,
  privateKeyPackageDecoder,
  privateKeyPackageEncoder,
} from 'ts-mls'
import { verifyKeyPackage } from '../../../node_modules/ts-mls/dist/src/keyPackage.js'
import { verifyLeafNodeSignatureKeyPackage } from '../../../node_modules/ts-mls/dist/src/leafNode.js'
import { PylonError } from '../../base/errors.ts'
import { CIPHERSUITE_ID, GROUP_DATA_EXTENSION, LAST_RESORT_EXTENSION, mlsContext, OWN_CAPABILITIES } from './context.ts'

/** As it is stored. */
export interface OwnKeyPackage {
  readonly publicBytes: Uint8Array
  readonly privateBytes: Uint8Array
  /** KeyPackageRef, hex. */
  readonly ref: string
}

/** @param times unix seconds */
export async function newKeyPackage(
  pubkey: string,
  times: { readonly notBefore: number; readonly notAfter: number },
): Promise<OwnKeyPackage> {
  const { cipherSuite } = await mlsContext()
  const { publicPackage, privatePackage } = await generateKeyPackage({
    credential: { credentialType: defaultCredentialTypes.basic, identity: Uint8Array.from(Buffer.from(pubkey, 'hex')) },
    capabilities: OWN_CAPABILITIES,
    lifetime: { notBefore: BigInt(times.notBefore), notAfter: BigInt(times.notAfter) },
    extensions: [makeCustomExtension({ extensionType: LAST_RESORT_EXTENSION, extensionData: new Uint8Array() })],
    cipherSuite,
  })
  return {
    publicBytes: encode(keyPackageEncoder, publicPackage),
    privateBytes: encode(privateKeyPackageEncoder, privatePackage),
    ref: await refOf(publicPackage),
  }
}

export async function refOf(keyPackage: KeyPackage): Promise<string> {
  const { cipherSuite } = await mlsContext()
  return Buffer.from(await makeKeyPackageRef(keyPackage, cipherSuite.hash)).toString('hex')
}

/** @throws session_key_package_invalid */
export function decodeKeyPackage(bytes: Uint8Array): KeyPackage {
  const decoded = attempt(() => decode(keyPackageDecoder, bytes))
  if (decoded === undefined) throw keyPackageInvalid('it is no MLS key package')
  return decoded
}

export function decodePrivateKeyPackage(bytes: Uint8Array): PrivateKeyPackage {
  const decoded = attempt(() => decode(privateKeyPackageDecoder, bytes))
  if (decoded === undefined) throw new PylonError('internal', 'The private part of a key package is unreadable.')
  return decoded
}

/** Whose it is, whether it can do what our groups need, its time and its signatures. @throws session_key_package_invalid */
export async function assertUsable(keyPackage: KeyPackage, pubkey: string, nowS: number): Promise<void> {
  const { cipherSuite, leafNode, extensions, initKey } = keyPackage
  if (cipherSuite !== CIPHERSUITE_ID) throw keyPackageInvalid(`its cipher suite is ${cipherSuite}`)
  const { credential, capabilities, lifetime } = leafNode
  if (!('identity' in credential) || Buffer.from(credential.identity).toString('hex') !== pubkey) {
    throw keyPackageInvalid('it was made for another key')
  }
  if (!capabilities.extensions.includes(GROUP_DATA_EXTENSION)) throw keyPackageInvalid('it does not know Marmot groups (0xf2ee)')
  if (extensions.some(({ extensionType }) => !capabilities.extensions.includes(extensionType))) {
    throw keyPackageInvalid('it has extensions that it does not know itself')
  }
  if (Number(lifetime.notAfter) <= nowS) throw keyPackageInvalid('its time is over')
  if (Number(lifetime.notBefore) > nowS) throw keyPackageInvalid('its time has not begun')
  if (Buffer.from(initKey).equals(leafNode.hpkePublicKey)) throw keyPackageInvalid('two of its keys are the same')
  const { signature } = (await mlsContext()).cipherSuite
  const isSigned = await attemptAsync(
    async () => (await verifyLeafNodeSignatureKeyPackage(leafNode, signature)) && (await verifyKeyPackage(keyPackage, signature)),
  )
  if (isSigned !== true) throw keyPackageInvalid('its signature is wrong')
}

export function keyPackageInvalid(why: string): PylonError {
  return new PylonError('session_key_package_invalid', `The key package can't be used: ${why}.`)
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch {
    // A stranger's bytes: what can't be decoded throws here and there, in the words of nobody.
    return undefined
  }
}

async function attemptAsync<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch {
    // As above: keys that are none.
    return undefined
  }
}
