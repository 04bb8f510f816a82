/** QR codes in the terminal, for what a phone should scan. */
import { renderUnicodeCompact } from 'uqr'

/**
 * Half blocks, two modules a row, light ones in the colour of the text: right on a dark terminal, and inverse, which most phones read too, on a
 * light one. Undefined beyond what a phone reads from a screen.
 */
export function drawQr(text: string): string | undefined {
  if (text.length > MAX_CHARS) return undefined
  return renderUnicodeCompact(text, { ecc: 'L', border: 2 })
}

const MAX_CHARS = 2000
