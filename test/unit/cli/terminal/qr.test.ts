/** Codes are for people at a terminal: programs and pipes get the text alone. */
import { afterEach, expect, test, vi } from 'vitest'
import { drawQr, printBech32Qr, printQr } from '../../../../src/cli/terminal/qr.ts'

const wasTTY = process.stdout.isTTY
const written: string[] = []
const capture = (isTTY: boolean) => {
  process.stdout.isTTY = isTTY
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0)
}

afterEach(() => {
  vi.restoreAllMocks()
  process.stdout.isTTY = wasTTY
  written.length = 0
})

test('a code is drawn on a terminal, and nowhere else', () => {
  capture(false)
  printQr({ json: false }, 'lnbcrt1')
  expect(written).toEqual([])
  capture(true)
  printQr({ json: true }, 'lnbcrt1')
  expect(written).toEqual([])
  printQr({ json: false }, 'lnbcrt1')
  expect(written.join('')).toContain('▀')
})

test('an invoice is drawn in capitals, which is a smaller code; what is too long for a phone is not drawn', () => {
  capture(true)
  const invoice = `lnbcrt1${'qpzry9x8gf2tvdw0'.repeat(20)}`
  printBech32Qr({ json: false }, invoice)
  const drawn = written.join('')
  expect(drawn.length).toBeLessThan(drawQr(invoice)?.length ?? 0)
  written.length = 0
  printQr({ json: false }, 'x'.repeat(2001))
  expect(written).toEqual([])
})
