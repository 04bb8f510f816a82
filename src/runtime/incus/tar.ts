/** Writes tar archives (ustar) in memory, owned by root: enough for an image that nobody needs root to build. */
import { PylonError } from '../../base/errors.ts'

export type TarEntry =
  | { readonly type: 'file'; readonly path: string; readonly mode: number; readonly data: Uint8Array | string }
  | { readonly type: 'directory'; readonly path: string; readonly mode: number }
  | { readonly type: 'symlink'; readonly path: string; readonly target: string }

const BLOCK = 512
const TYPE_FLAGS = { file: '0', symlink: '2', directory: '5' } as const

/** @throws internal for a path or link over 100 bytes, which the plain format cannot carry */
export function tarOf(entries: readonly TarEntry[]): Buffer {
  const parts: Buffer[] = []
  for (const entry of entries) {
    const data = entry.type === 'file' ? Buffer.from(entry.data) : Buffer.alloc(0)
    parts.push(header(entry, data.length), data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK))
  }
  parts.push(Buffer.alloc(2 * BLOCK))
  return Buffer.concat(parts)
}

function header(entry: TarEntry, size: number): Buffer {
  const block = Buffer.alloc(BLOCK)
  const put = (text: string, offset: number, length: number) => {
    if (Buffer.byteLength(text) > length) throw new PylonError('internal', `${text} is too long for a tar archive.`)
    block.write(text, offset, length, 'utf8')
  }
  const octal = (value: number, offset: number, length: number) => put(`${value.toString(8).padStart(length - 1, '0')}\0`, offset, length)
  put(entry.path, 0, 100)
  octal(entry.type === 'symlink' ? 0o777 : entry.mode, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(size, 124, 12)
  // The same content gives the same image, whenever it is built.
  octal(0, 136, 12)
  put('        ', 148, 8)
  put(TYPE_FLAGS[entry.type], 156, 1)
  if (entry.type === 'symlink') put(entry.target, 157, 100)
  put('ustar\0', 257, 6)
  put('00', 263, 2)
  put('root', 265, 32)
  put('root', 297, 32)
  const sum = block.reduce((total, byte) => total + byte, 0)
  put(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8)
  return block
}
