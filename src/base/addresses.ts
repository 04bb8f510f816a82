/** Which IP addresses are public: the guarded dialer connects to no other. */
import { isIPv4, isIPv6 } from 'node:net'

/** IPv4 networks that are not the public internet: [address, prefix bits] (RFC 6890 and its successors). */
const V4_REFUSED: readonly (readonly [string, number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
]

function v4Number(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
}

function isPublicV4Number(value: number): boolean {
  return !V4_REFUSED.some(([network, bits]) => {
    const size = 2 ** (32 - bits)
    return Math.floor(value / size) === Math.floor(v4Number(network) / size)
  })
}

/** The eight 16-bit groups of an IPv6 address that `isIPv6` accepted. */
function v6Groups(address: string): number[] {
  let text = address.split('%')[0] ?? ''
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  if (dotted !== null) {
    const value = v4Number(dotted[2] ?? '')
    text = `${dotted[1]}${Math.floor(value / 65536).toString(16)}:${(value % 65536).toString(16)}`
  }
  const [head = '', tail] = text.split('::')
  const parse = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)))
  const left = parse(head)
  if (tail === undefined) return left
  const right = parse(tail)
  return [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right]
}

function isPublicV6(address: string): boolean {
  const groups = v6Groups(address)
  const at = (index: number) => groups[index] ?? 0
  const embedded = at(6) * 65536 + at(7)
  const zeros = (from: number, to: number) => groups.slice(from, to).every((group) => group === 0)
  // v4-mapped (::ffff:0:0/96) and NAT64 (64:ff9b::/96) reach the v4 address that they carry.
  if (zeros(0, 5) && at(5) === 0xffff) return isPublicV4Number(embedded)
  if (at(0) === 0x64 && at(1) === 0xff9b && zeros(2, 6)) return isPublicV4Number(embedded)
  // Of all else only global unicast 2000::/3 is public, less its special blocks.
  if (at(0) >>> 13 !== 1) return false
  if (at(0) === 0x2001 && at(1) < 0x200) return false
  if (at(0) === 0x2001 && at(1) === 0xdb8) return false
  if (at(0) === 0x2002) return false
  if (at(0) === 0x3fff && at(1) < 0x1000) return false
  return true
}

/** Whether a literal address is on the public internet; false for whatever is no address. */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return isPublicV4Number(v4Number(address))
  if (isIPv6(address)) return isPublicV6(address)
  return false
}
