import { expect, test } from 'vitest'
import { MANAGED_STEPS, type ManagedPhase, statesOf } from '../../../src/base/states.ts'
import { isComing, type ManagedFacts, phaseOfStatus, taskOf, wordsOfStatus } from '../../../src/customer/agents/life.ts'

const facts = (over: Partial<ManagedFacts>): ManagedFacts => ({
  ...{ phase: 'requested', cleanup: 'none', isProvisioned: false, botPubkey: null, groupId: null, welcomesLeft: 0 },
  ...over,
})

test.each<[Partial<ManagedFacts>, string]>([
  [{}, 'provision'],
  [{ phase: 'booting', cleanup: 'due' }, 'provision'],
  [{ phase: 'waiting_for_keypackage_publish', isProvisioned: true, cleanup: 'due' }, 'learn its key'],
  [{ phase: 'waiting_for_keypackage_publish', isProvisioned: true, botPubkey: 'b' }, 'invite'],
  [
    { phase: 'waiting_for_keypackage_publish', isProvisioned: true, botPubkey: 'b', groupId: 'g', welcomesLeft: 1 },
    'hand over the welcome',
  ],
  [{ phase: 'waiting_for_keypackage_publish', isProvisioned: true, botPubkey: 'b', groupId: 'g' }, 'be ready'],
  [{ phase: 'ready', isProvisioned: true, cleanup: 'due' }, 'rest'],
  [{ phase: 'failed', cleanup: 'due' }, 'tear down'],
  [{ phase: 'failed', cleanup: 'kept' }, 'rest'],
  [{ phase: 'failed', cleanup: 'manual' }, 'rest'],
  [{ phase: 'ending', cleanup: 'due' }, 'tear down'],
  [{ phase: 'ending', cleanup: 'done' }, 'end'],
  [{ phase: 'ended', cleanup: 'done' }, 'rest'],
])('%o is due to %s', (over, task) => {
  expect(taskOf(facts(over))).toBe(task)
})

test('it fails on its way alone', () => {
  expect(statesOf(MANAGED_STEPS).filter((phase) => !isComing(phase))).toEqual(['ready', 'failed', 'ending', 'ended'])
})

test.each<[string, string | undefined, ManagedPhase | undefined]>([
  ['queued', undefined, undefined],
  ['provisioning', undefined, 'provisioning'],
  ['provisioning', 'booting_guest', 'booting'],
  ['provisioning', 'waiting_for_service_ready', 'waiting_for_service_ready'],
  ['provisioning', 'waiting_for_keypackage_publish', 'waiting_for_keypackage_publish'],
  ['provisioning', 'something new', 'provisioning'],
  ['ready', undefined, undefined],
])('a status %s with %s is %s', (phase, startupPhase, wanted) => {
  expect(phaseOfStatus({ phase, startupPhase })).toBe(wanted)
})

test('a status that asks for a payment is told with its price', () => {
  const progress = { payment_required: true, amount_msats: 60_000, lease_seconds: 600 }
  expect(wordsOfStatus({ phase: 'queued', message: 'waiting for payment', progress })).toBe('waiting for payment: 60 sats for 600 s')
  expect(wordsOfStatus({ phase: 'queued', message: 'request queued' })).toBe('request queued')
  expect(wordsOfStatus({ phase: 'provisioning' })).toBe('provisioning')
})
