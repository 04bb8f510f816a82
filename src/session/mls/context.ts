/** What MLS is set to, for all groups: cipher suite 1 of RFC 9420, Nostr keys as identities, how much is kept of the past. */
import {
  type Capabilities,
  defaultCredentialTypes,
  defaultKeyPackageEqualityConfig,
  defaultPaddingConfig,
  getCiphersuiteImpl,
  type MlsContext,
  protocolVersions,
} from 'ts-mls'

import { SELF_REMOVE } from './self-remove.ts'

export const CIPHERSUITE_ID = 1
export const GROUP_DATA_EXTENSION = 0xf2ee
export const LAST_RESORT_EXTENSION = 0x000a
/** Former epochs whose messages are still read, and to which a group can go back. */
export const EPOCHS_KEPT = 5
const GENERATIONS_KEPT = 100
const MAX_FORWARD_STEPS = 1000
const KEY_BYTES = 32

let shared: Promise<MlsContext> | undefined

/** Made once: it has no state. */
export function mlsContext(): Promise<MlsContext> {
  shared ??= makeContext()
  return shared
}

async function makeContext(): Promise<MlsContext> {
  return {
    cipherSuite: await getCiphersuiteImpl('MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519'),
    authService: {
      validateCredential: async (credential) =>
        credential.credentialType === defaultCredentialTypes.basic && 'identity' in credential && credential.identity.length === KEY_BYTES,
    },
    clientConfig: {
      keyRetentionConfig: {
        retainKeysForGenerations: GENERATIONS_KEPT,
        retainKeysForEpochs: EPOCHS_KEPT,
        maximumForwardRatchetSteps: MAX_FORWARD_STEPS,
      },
      // Whether a key package is in its time is judged by whoever uses it, by the clock of the scope.
      lifetimeConfig: { maximumTotalLifetime: BigInt(Number.MAX_SAFE_INTEGER), validateLifetimeOnReceive: false },
      keyPackageEqualityConfig: defaultKeyPackageEqualityConfig,
      paddingConfig: defaultPaddingConfig,
    },
  }
}

/** What our leaves say that they can do. */
export const OWN_CAPABILITIES: Capabilities = {
  versions: [protocolVersions.mls10],
  ciphersuites: [CIPHERSUITE_ID],
  extensions: [LAST_RESORT_EXTENSION, GROUP_DATA_EXTENSION],
  proposals: [SELF_REMOVE],
  credentials: [defaultCredentialTypes.basic],
}
