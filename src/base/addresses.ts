/** Which IP addresses are public: the guarded dialer connects to no other. */
import { BlockList, isIPv4, isIPv6 } from 'node:net'

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

/** IPv6 prefixes that reach the IPv4 address which they carry: v4-mapped addresses, and NAT64. */
const V6_CARRYING = ['::ffff:', '64:ff9b::']
/** Of IPv6 only global unicast is public, less its special blocks. */
const V6_PUBLIC = ['2000::', 3] as const
const V6_REFUSED: readonly (readonly [string, number])[] = [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
]

const publicV6 = new BlockList()
const refused = new BlockList()
publicV6.addSubnet(...V6_PUBLIC, 'ipv6')
for (const prefix of V6_CARRYING) publicV6.addSubnet(`${prefix}0.0.0.0`, 96, 'ipv6')
for (const [network, bits] of V6_REFUSED) refused.addSubnet(network, bits, 'ipv6')
for (const [network, bits] of V4_REFUSED) {
  refused.addSubnet(network, bits, 'ipv4')
  for (const prefix of V6_CARRYING) refused.addSubnet(`${prefix}${network}`, 96 + bits, 'ipv6')
}

/** Whether a literal address is on the public internet; false for whatever is no address. */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !refused.check(address, 'ipv4')
  // Without its zone, which names an interface of this machine.
  const [bare = ''] = address.split('%')
  return isIPv6(address) && publicV6.check(bare, 'ipv6') && !refused.check(bare, 'ipv6')
}
