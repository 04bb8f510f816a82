import { describe, expect, it } from 'vitest'
import { Sessions } from '../../../src/session/sessions.ts'

describe('sessions', () => {
  it('are one class for each key', () => {
    expect(Sessions).toBeTypeOf('function')
  })
})
