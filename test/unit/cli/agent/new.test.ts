/** Flags of `pylon agent new`: whose they are, and what of them is refused in words. */
import { expect, test } from 'vitest'
import { assertFlagsFit, flagsOf, PROVIDERS, providerIn } from '../../../../src/cli/agent/provider-flags.ts'

const names = (provider: string | undefined) => flagsOf(provider).map(({ name }) => name)

test('microvm has exactly the flags that were published for it', () => {
  const published = ['spawner-url', 'spawn-variant', 'flake-ref', 'dev-shell', 'cpu', 'memory-mb', 'ttl-seconds']
  expect(names('microvm')).toEqual(published)
  for (const other of PROVIDERS.filter((one) => one !== 'microvm'))
    expect(names(other).filter((name) => published.includes(name))).toEqual([])
})

test('without a provider all are shown, and each belongs to somebody', () => {
  expect(names(undefined).length).toBeGreaterThan(names('incus').length)
  for (const { of } of flagsOf(undefined)) expect(of.length).toBeGreaterThan(0)
  expect(names('workers')).toEqual([])
})

test('a flag that does not fit is refused, with the provider whose it is', () => {
  expect(() => assertFlagsFit('microvm', { 'spawner-url': 'http://x', provider: 'microvm', name: 'a' })).not.toThrow()
  expect(() => assertFlagsFit('fly', { 'spawner-url': 'http://x', 'flake-ref': '.#a' })).toThrow(
    '--spawner-url, --flake-ref do not fit --provider fly: --spawner-url needs --provider microvm.',
  )
  expect(() => assertFlagsFit('local', { image: 'debian' })).toThrow(
    '--image does not fit --provider local: --image needs --provider incus.',
  )
  expect(() => assertFlagsFit('workers', { cpus: '1' })).toThrow('--provider local or --provider incus or --provider fly')
})

test('the provider is seen before the words are parsed', () => {
  expect(providerIn(['agent', 'new', '--provider', 'incus', '--help'])).toBe('incus')
  expect(providerIn(['agent', 'new', '--provider=fly'])).toBe('fly')
  expect(providerIn(['agent', 'new'])).toBeUndefined()
})
