/** The words for an executable that cannot unpack its native code. */
import { mkdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { addonError } from '../../../src/base/assets.ts'

const thrownBy = (work: () => unknown): unknown => {
  try {
    work()
  } catch (error) {
    return error
  }
  return undefined
}

test('a cache that cannot be written is named with the way out; other errors are left alone', () => {
  const error = thrownBy(() => mkdirSync(`/dev/null/.cache/pkg/${'ab'.repeat(32)}`, { recursive: true }))
  expect(addonError(error)).toMatchObject({
    code: 'home_unusable',
    message: expect.stringMatching(/below \/dev\/null\/\.cache .*PKG_NATIVE_CACHE_PATH/),
  })
  expect(addonError(thrownBy(() => mkdirSync('/dev/null/x')))).toBeUndefined()
  expect(addonError(new Error('other'))).toBeUndefined()
})
