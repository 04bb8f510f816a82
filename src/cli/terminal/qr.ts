/** QR codes in the terminal, for what a phone should scan. */
import { renderUnicodeCompact } from 'uqr'

/** Half blocks, two modules a row; dark on light whatever the colours of the terminal. Beyond some 2000 characters no phone reads it: undefined. */
export function drawQr(text: string): string | undefined {
  if (text.length > MAX_CHARS) return undefined
  return renderUnicodeCompact(text, { ecc: 'L', border: 2 })
}

const MAX_CHARS = 2000
