import { expect, test } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { Speech } from '../../../src/guest/session/speech.ts'
import type { EnvelopeBody } from '../../../src/session/envelope.ts'
import { testScope } from '../../support/scope.ts'

test('the end of a turn waits for nothing, however the pieces are paced', async () => {
  const clock = new ManualClock(0)
  const scope = testScope(clock)
  const said: EnvelopeBody[] = []
  const speech = new Speech({
    scope,
    say: async (body) => {
      said.push(body)
    },
  })
  speech.hear({ type: 'text', text: 'a ' })
  await clock.advance(0)
  await expect.poll(() => said).toEqual([{ type: 'text_delta', delta: 'a ' }])
  speech.hear({ type: 'text', text: 'b' })
  // The clock stands still from here on.
  expect(await speech.finish('a b')).toEqual([{ type: 'assistant_text', text: 'a b' }])
  expect(said).toEqual([{ type: 'text_delta', delta: 'a ' }])
  await scope.close()
})
