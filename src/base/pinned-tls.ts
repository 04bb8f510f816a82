/** TLS to one server whose exact certificate is known: no authority and no name can stand in for it. */
import { createHash, X509Certificate } from 'node:crypto'
import type { ConnectionOptions, PeerCertificate } from 'node:tls'
import { messageOf, PylonError } from './errors.ts'

/** PEM texts: the client's certificate and key, and the certificate that the server must present. */
export interface PinnedTls {
  readonly clientCert: string
  readonly clientKey: string
  readonly serverCert: string
}

type PinnedOptions = Pick<ConnectionOptions, 'ca' | 'cert' | 'key' | 'allowPartialTrustChain' | 'rejectUnauthorized' | 'minVersion'> & {
  checkServerIdentity: (host: string, certificate: PeerCertificate) => Error | undefined
}

/** @throws config_invalid when the server certificate is no PEM certificate. */
export function pinnedTlsOptions(tls: PinnedTls): PinnedOptions {
  const pin = certificateFingerprint(tls.serverCert)
  return {
    ca: tls.serverCert,
    cert: tls.clientCert,
    key: tls.clientKey,
    // A pinned leaf that an authority issued ends the chain here.
    allowPartialTrustChain: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    // The pin says who it is; the names in the certificate of a cluster are those of one member.
    checkServerIdentity: (host, certificate) => {
      const seen = createHash('sha256').update(certificate.raw).digest('hex')
      return seen === pin ? undefined : new Error(`${host} presented the certificate ${seen}, and ${pin} is pinned`)
    },
  }
}

/** The SHA-256 of the certificate in DER, 64 hex digits. @throws config_invalid */
export function certificateFingerprint(pem: string): string {
  try {
    return createHash('sha256').update(new X509Certificate(pem).raw).digest('hex')
  } catch (error) {
    throw new PylonError('config_invalid', `The pinned server certificate is no PEM certificate: ${messageOf(error)}`)
  }
}
