/** The contract against whatever can be made up: decoders give a value or a named error, paths stay where they belong. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PylonError } from '../../src/base/errors.ts'
import { decodeGuestRequest } from '../../src/runtime/contract/guest-request.ts'
import { decodeLaunch } from '../../src/runtime/contract/launch.ts'
import { decodeEvents, decodeResult, decodeStatus } from '../../src/runtime/contract/lifecycle.ts'
import { isUnder, normalPath } from '../../src/runtime/contract/paths.ts'
import { decodePromptRequest } from '../../src/runtime/contract/prompt.ts'
import { decodeRuntimeSpec, withStateDir } from '../../src/runtime/contract/spec.ts'
import { verifyTicket } from '../../src/runtime/contract/ticket.ts'
import { matchesGlob } from '../../src/runtime/globs.ts'
import { judgeReadiness } from '../../src/runtime/readiness.ts'

const identity = { runtime_id: 'a', instance_name: 'b' }
const segment = fc.constantFrom('a', 'b', '..', '.', '', 'run', 'pika-cloud', 'pika-cloud-x')
const path = fc.array(segment, { maxLength: 6 }).map((parts) => `/${parts.join('/')}`)

function named(decode: () => unknown): void {
  try {
    decode()
  } catch (error) {
    expect(error).toBeInstanceOf(PylonError)
    expect((error as PylonError).code).not.toBe('internal')
  }
}

test('decoders name what they refuse', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.string(), (value, text) => {
      for (const input of [JSON.stringify(value), text]) {
        for (const decode of [decodeStatus, decodeResult, decodeEvents, decodeGuestRequest, decodeLaunch]) named(() => decode(input, 's'))
      }
      named(() => decodeRuntimeSpec(value))
      named(() => decodePromptRequest(value))
    }),
  )
})

test('a status of a stranger is never ready', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.json(), fc.string()),
      fc.option(fc.json(), { nil: undefined }),
      fc.boolean(),
      (statusText, resultText, alive) => {
        const readiness = judgeReadiness({ alive, bootId: 'real', statusText, resultText, protocol: 'acp' })
        expect(readiness.state).not.toBe('ready')
      },
    ),
  )
})

test('an accepted path lies below the state directory, also by the system’s own reckoning', () => {
  fc.assert(
    fc.property(path, path, (state_dir, events_path) => {
      const below = (name: string) => `${state_dir}/x-${name}`
      const paths = {
        state_dir,
        events_path,
        status_path: below('s'),
        result_path: below('r'),
        guest_request_path: below('q'),
        logs_dir: below('l'),
        guest_log_path: below('g'),
        artifacts_dir: below('a'),
      }
      let spec: ReturnType<typeof decodeRuntimeSpec>
      try {
        spec = decodeRuntimeSpec({ identity, paths })
      } catch {
        return
      }
      const real = new URL(`file://${spec.paths.events_path}`).pathname.replace(/\/+/g, '/')
      expect(`${real}/`.startsWith(`${normalPath(state_dir)}/`)).toBe(true)
      const moved = withStateDir(spec, '/elsewhere')
      expect(isUnder(moved.paths.events_path, '/elsewhere')).toBe(true)
    }),
    { numRuns: 2000 },
  )
})

test('no made-up ticket opens anything', () => {
  fc.assert(fc.property(fc.string({ maxLength: 200 }), (ticket) => !verifyTicket('ab'.repeat(32), 'r', ticket, 0)))
})

test('a pattern matches as its regular expression does', () => {
  const name = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 5 })
  const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '*', '?'), minLength: 1, maxLength: 6 }).filter((text) => text !== '**')
  const regexOf = (glob: string) => new RegExp(`^${glob.replaceAll('*', '[^/]*').replaceAll('?', '[^/]')}$`)
  fc.assert(fc.property(name, pattern, (text, glob) => matchesGlob(text, glob) === regexOf(glob).test(text)))
})

test('no pattern takes long', () => {
  const glob = `${'*a'.repeat(500)}b`
  expect(matchesGlob('a'.repeat(4000), glob)).toBe(false)
})
