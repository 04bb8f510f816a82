/** QR codes in the terminal, for what a phone should scan. */
import { renderUnicodeCompact } from 'uqr'
import { print } from './output.ts'

/**
 * Half blocks, two modules a row, light ones in the colour of the text: right on a dark terminal, and inverse, which most phones read too, on a
 * light one. Undefined beyond what a phone reads from a screen.
 */
export function drawQr(text: string): string | undefined {
  if (text.length > MAX_CHARS) return undefined
  return renderUnicodeCompact(text, { ecc: 'L', border: 2 })
}

const MAX_CHARS = 2000

/** Below what was printed, for a person at a terminal; nothing for programs. */
export function printQr(args: { readonly json: boolean }, text: string): void {
  const qr = args.json || !process.stdout.isTTY ? undefined : drawQr(text)
  if (qr !== undefined) print(`\n${qr}`)
}

/** Of a bech32 text as an invoice: in capitals, which make a smaller code that means the same. */
export const printBech32Qr = (args: { readonly json: boolean }, text: string): void => printQr(args, text.toUpperCase())
