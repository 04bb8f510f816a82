import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { byteLines, textOf } from '../../../../src/cli/terminal/values.ts'

test('bytes that are no UTF-8 are refused, and nothing of text is lost', () => {
  expect(textOf(Buffer.from('\u00e4 \u{1f980}\n'), 'x')).toBe('\u00e4 \u{1f980}\n')
  expect(() => textOf(Buffer.from([0x61, 0xff]), 'standard input')).toThrow('standard input is no UTF-8')
  expect(() => textOf(Buffer.from('\u00e4').subarray(0, 1), 'x')).toThrow('no UTF-8')
})

test('lines keep their bytes, also where a character is cut in two', async () => {
  const input = new PassThrough()
  const bytes = Buffer.from('\u00e4\u2028b\nc\n')
  input.write(bytes.subarray(0, 1))
  input.end(bytes.subarray(1))
  const lines: string[] = []
  for await (const line of byteLines(input)) lines.push(textOf(Buffer.from(line, 'latin1'), 'x'))
  expect(lines).toEqual(['\u00e4\u2028b', 'c'])
})
