/** A part of the node: what it needs, what it may lack, how it fails and how it ends, without the rest. */
import { expect, test } from 'vitest'
import { ManualClock } from '../../../src/base/clock.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import type { Scope } from '../../../src/base/scope.ts'
import { Part } from '../../../src/daemon/part.ts'
import { testScope } from '../../support/scope.ts'

const logger = silentLogger

test('what cannot be built gives its own error to whoever needs it, and nobody else', async () => {
  const scope = testScope()
  const mint = new Part<number>({
    name: 'mint',
    build: () => {
      throw new PylonError('disk_full', 'The disk is full.')
    },
  })
  const relays = new Part<string>({ name: 'relays', build: () => 'relays' })
  const wallet = new Part<string>({ name: 'wallet', needs: { mint }, build: () => 'wallet' })
  const host = new Part<string>({ name: 'host', needs: { relays }, wants: { mint }, build: ({ relays, mint }) => `${relays} ${mint}` })
  expect(wallet.health).toMatchObject({ state: 'off', reason: 'locked', nextStep: 'pylon unlock' })
  expect(() => wallet.get()).toThrow('pylon unlock')
  for (const part of [mint, relays, wallet, host]) part.build(logger, scope)
  for (const part of [mint, wallet]) {
    expect(part.health).toEqual({ state: 'degraded', reason: 'disk_full: The disk is full.', nextStep: 'pylon doctor' })
    expect(() => part.get()).toThrow('The disk is full.')
    expect(part.peek()).toBeUndefined()
  }
  expect(host.get()).toBe('relays undefined')
  expect(host.health).toEqual({ state: 'ok' })
  expect(host.uses).toEqual([relays, mint])
  await scope.close()
})

test('what does not start is there for those that were built with it, and says that it is not up', async () => {
  const scope = testScope()
  const part = new Part<string>({
    name: 'relays',
    build: () => 'relays',
    start: () => Promise.reject(new PylonError('relay_unreachable', 'Nobody answers.')),
    health: () => ({ state: 'degraded', reason: 'not asked' }),
  })
  part.build(logger, scope)
  expect(part.health).toEqual({ state: 'degraded', reason: 'not asked' })
  await part.start(logger)
  expect(part.get()).toBe('relays')
  expect(part.up()).toBeUndefined()
  expect(part.health).toMatchObject({ state: 'degraded', reason: 'relay_unreachable: Nobody answers.' })
  await scope.close()
})

test('what is off says why and what to do, and is never built', () => {
  const part = new Part<string>({
    name: 'machines',
    off: () => ({ reason: 'runtimes.enabled is false', message: 'Machines are off.', nextStep: 'pylon config set runtimes.enabled true' }),
    build: () => {
      throw new Error('It was built.')
    },
  })
  part.build(logger, testScope())
  expect(part.health).toEqual({ state: 'off', reason: 'runtimes.enabled is false', nextStep: 'pylon config set runtimes.enabled true' })
  expect(() => part.get()).toThrow(new PylonError('conflict', 'Machines are off.'))
})

test('an end is told first, then what runs has the time that is left of its own or of the node, and what is late is named', async () => {
  const clock = new ManualClock()
  const scope = testScope(clock)
  const told: number[] = []
  let own: Scope | undefined
  const part = new Part<Scope>({
    name: 'jobs',
    build: (_, mine) => {
      own = mine
      return mine
    },
    stop: async (_, drainMs) => {
      told.push(drainMs)
      await clock.sleep(1000)
    },
    drainMs: 5000,
  })
  part.build(logger, scope)
  const ends: string[] = []
  own?.spawn('in time', async () => {
    await clock.sleep(4900)
    ends.push('in time')
  })
  own?.spawn('stubborn', () => new Promise(() => {}))
  await clock.advance(0)
  const stopping = part.stop(logger, 7000)
  await clock.advance(4950)
  expect(told).toEqual([5000])
  expect(ends).toEqual(['in time'])
  await clock.advance(2000)
  expect((await stopping).map(({ path }) => path)).toEqual(['test/jobs/stubborn'])
})
