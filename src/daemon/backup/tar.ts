/** As much of the tar format (POSIX ustar, sizes over 8 GiB as GNU writes them) as a backup needs: a few plain files, one after the other. */
import { damaged } from './age.ts'

export interface TarEntry {
  readonly name: string
  readonly bytes: number
}

export const BLOCK_BYTES = 512
const MAX_OCTAL_SIZE = 0o77777777777
const BASE_256 = 0x80

/** The block before a file. Its mode is 0600 and its owner nobody in particular. @param mtimeS Unix seconds */
export function tarHeader({ name, bytes }: TarEntry, mtimeS: number): Uint8Array {
  const block = Buffer.alloc(BLOCK_BYTES)
  block.write(name, 0, 100, 'latin1')
  block.write('0000600\0', 100, 'latin1')
  block.write('0000000\0', 108, 'latin1')
  block.write('0000000\0', 116, 'latin1')
  if (bytes <= MAX_OCTAL_SIZE) block.write(`${octal(bytes, 11)}\0`, 124, 'latin1')
  else {
    block.writeUInt8(BASE_256, 124)
    block.writeBigUInt64BE(BigInt(bytes), 128)
  }
  block.write(`${octal(mtimeS, 11)}\0`, 136, 'latin1')
  block.write('0', 156, 'latin1')
  block.write('ustar\x0000', 257, 'latin1')
  block.write(`${octal(checksum(block), 6)}\0 `, 148, 'latin1')
  return block
}

/** Undefined for the empty block that ends an archive. @throws backup_damaged */
export function readTarHeader(block: Uint8Array): TarEntry | undefined {
  if (block.every((byte) => byte === 0)) return undefined
  const buffer = Buffer.from(block)
  const field = (from: number, length: number) => buffer.toString('latin1', from, from + length).replace(/[\0 ].*$/s, '')
  if (Number.parseInt(field(148, 8), 8) !== checksum(buffer)) throw damaged('a file in it has no good head')
  // The digit of a plain file, or none in what old tools wrote.
  if (!['0', ''].includes(field(156, 1))) throw damaged('it holds something that is no plain file')
  const bytes = buffer.readUInt8(124) === BASE_256 ? Number(buffer.readBigUInt64BE(128)) : Number.parseInt(field(124, 12), 8)
  if (!Number.isSafeInteger(bytes) || bytes < 0) throw damaged('a file in it has no size')
  return { name: field(0, 100), bytes }
}

/** How many bytes fill up the last block of a file. */
export const paddingOf = (bytes: number): number => (BLOCK_BYTES - (bytes % BLOCK_BYTES)) % BLOCK_BYTES

const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, '0')

/** The sum of its bytes, with its own field as blanks. */
function checksum(block: Buffer): number {
  return block.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 0x20 : byte), 0)
}
