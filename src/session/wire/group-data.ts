/** marmot_group_data (MIP-01), the extension 0xf2ee of a group: lengths as in RFC 9420 (variable-length integers, in bytes). */
import { PylonError } from '../../base/errors.ts'

const VERSION = 2
const ID_BYTES = 32
const MAX_NAME_BYTES = 1000
const MAX_DESCRIPTION_BYTES = 10_000
const MAX_ADMINS = 200
const MAX_RELAYS = 20
const MAX_RELAY_BYTES = 512

export interface GroupData {
  readonly version: number
  /** 64 hex digits: the `h` tag. */
  readonly nostrGroupId: string
  readonly name: string
  readonly description: string
  readonly admins: readonly string[]
  readonly relays: readonly string[]
  /** What we do not use and hand on: hash, key, nonce and upload key of an image. */
  readonly image: readonly Uint8Array[]
}

export function encodeGroupData(data: GroupData): Uint8Array {
  const admins = [...new Set(data.admins)].sort().map((pubkey) => Buffer.from(pubkey, 'hex'))
  const relays = data.relays.map((url) => vector(Buffer.from(url)))
  const parts = [
    Buffer.from([data.version >> 8, data.version & 0xff]),
    Buffer.from(data.nostrGroupId, 'hex'),
    vector(Buffer.from(data.name)),
    vector(Buffer.from(data.description)),
    vector(Buffer.concat(admins)),
    vector(Buffer.concat(relays)),
    ...[0, 1, 2, 3].map((at) => vector(data.image[at] ?? new Uint8Array())),
  ]
  return Uint8Array.from(Buffer.concat(parts))
}

export const newGroupData = (of: Pick<GroupData, 'nostrGroupId' | 'name' | 'admins' | 'relays'>): GroupData => ({
  ...of,
  version: VERSION,
  description: '',
  image: [0, 1, 2, 3].map(() => new Uint8Array()),
})

/** @throws session_refused */
export function decodeGroupData(bytes: Uint8Array): GroupData {
  const reader = new Reader(bytes)
  const version = (reader.byte() << 8) | reader.byte()
  if (version === 0) throw invalid('its version is 0')
  const nostrGroupId = Buffer.from(reader.take(ID_BYTES)).toString('hex')
  const name = reader.text(MAX_NAME_BYTES)
  const description = reader.text(MAX_DESCRIPTION_BYTES)
  const adminBytes = reader.vector(MAX_ADMINS * ID_BYTES)
  if (adminBytes.length % ID_BYTES !== 0) throw invalid('its admins are not keys')
  const hex = Buffer.from(adminBytes).toString('hex')
  const admins = [...new Set(hex.match(/.{64}/g) ?? [])]
  const inner = new Reader(reader.vector(MAX_RELAYS * MAX_RELAY_BYTES))
  const relays: string[] = []
  while (!inner.isAtEnd) relays.push(inner.text(MAX_RELAY_BYTES))
  const image = [32, 32, 12, 32].map((length) => reader.vector(length))
  // A later version may have more to say.
  if (!reader.isAtEnd && version <= VERSION) throw invalid('there is more than it says')
  return { version, nostrGroupId, name, description, admins, relays, image }
}

function invalid(why: string): PylonError {
  return new PylonError('session_refused', `The data of the group can't be read: ${why}.`)
}

function vector(bytes: Uint8Array): Buffer {
  return Buffer.concat([length(bytes.length), bytes])
}

function length(n: number): Buffer {
  if (n < 64) return Buffer.from([n])
  if (n < 16_384) return Buffer.from([0x40 | (n >> 8), n & 0xff])
  return Buffer.from([0x80 | (n >> 24), (n >> 16) & 0xff, (n >> 8) & 0xff, n & 0xff])
}

class Reader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  byte(): number {
    return this.take(1)[0] ?? 0
  }

  take(count: number): Uint8Array {
    if (this.#at + count > this.#bytes.length) throw invalid('it is cut off')
    this.#at += count
    return this.#bytes.slice(this.#at - count, this.#at)
  }

  vector(max: number): Uint8Array {
    const first = this.byte()
    const more = [0, 1, 3, -1][first >> 6] ?? -1
    if (more < 0) throw invalid('a length is malformed')
    let count = first & 0x3f
    for (let i = 0; i < more; i++) count = count * 256 + this.byte()
    if (count > max) throw invalid('a part is too long')
    return this.take(count)
  }

  text(max: number): string {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(this.vector(max))
    } catch (error) {
      if (error instanceof PylonError) throw error
      throw invalid('a text is not UTF-8')
    }
  }
}
