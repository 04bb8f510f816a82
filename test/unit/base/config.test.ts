import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DEFAULT_CONFIG, getConfigValue, loadConfig, parseConfig, setConfigValue } from '../../../src/base/config.ts'
import { tempDir } from '../../support/temp.ts'

describe('config.toml', () => {
  it('may be absent or empty', () => {
    expect(loadConfig(join(tempDir(), 'config.toml'))).toEqual(DEFAULT_CONFIG)
    expect(parseConfig('')).toEqual(DEFAULT_CONFIG)
  })

  it.each([
    ['[node]\nmode = "banana"', /node\.mode/],
    ['[node]\ncolour = 1', /colour/],
    ['[provider.prices]\n"1" = { amount_msats = 5 }', /5000 to 5999/],
    ['[provider.prices]\n"5001" = { amount_msats = -1 }', /amount_msats/],
    ['[provider.prices]\n"5001" = { amount_msats = 1.5 }', /amount_msats/],
    ['[node]\nrelays = ["https://x"]', /ws:\/\//],
    ['[[provider.exec]]\nkind = 5002\ncommand = []', /command/],
    ['node = ', /not valid TOML/],
  ])('names the key that is wrong: %s', (source, problem) => {
    expect(() => parseConfig(source)).toThrow(expect.objectContaining({ code: 'config_invalid', message: expect.stringMatching(problem) }))
  })

  it('takes as text what is a TOML number too, where text is meant', () => {
    const path = join(tempDir(), 'config.toml')
    expect(setConfigValue(path, 'node.name', '42').node.name).toBe('42')
    expect(() => setConfigValue(path, 'provider.job_timeout_s', 'soon')).toThrow(/job_timeout_s/)
  })

  it('sets one key and keeps the others', () => {
    const path = join(tempDir(), 'config.toml')
    writeFileSync(path, '[node]\nname = "mine"\n')
    setConfigValue(path, 'provider.prices.5001.amount_msats', '0')
    const config = setConfigValue(path, 'node.relays', '["ws://127.0.0.1:7000"]')
    expect(config.node).toMatchObject({ name: 'mine', relays: ['ws://127.0.0.1:7000'] })
    expect(getConfigValue(config, 'provider.prices.5001')).toEqual({ amount_msats: 0, unit: 'job' })
    expect(loadConfig(path)).toEqual(config)
  })

  it('leaves the file alone when the value is refused', () => {
    const path = join(tempDir(), 'config.toml')
    writeFileSync(path, '[node]\nname = "mine"\n')
    for (const [key, value] of [
      ['node.mode', 'banana'],
      ['node.nothing', '1'],
      ['__proto__.polluted', '1'],
      ['node.name.first', 'x'],
    ] as const) {
      expect(() => setConfigValue(path, key, value)).toThrow()
    }
    expect(readFileSync(path, 'utf8')).toBe('[node]\nname = "mine"\n')
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
  })

  it('does not know keys that are not there', () => {
    expect(() => getConfigValue(DEFAULT_CONFIG, 'node.nothing')).toThrow(expect.objectContaining({ code: 'config_unknown_key' }))
    expect(() => getConfigValue(DEFAULT_CONFIG, 'constructor')).toThrow(expect.objectContaining({ code: 'config_unknown_key' }))
  })
})

describe('words for what was mistyped', () => {
  const set = (key: string, value: string) => setConfigValue(join(tempDir(), 'config.toml'), key, value)
  it.each([
    ['node.relay', 'wss://x', 'did you mean node.relays?'],
    ['provider.concurency', '3', 'did you mean provider.concurrency?'],
    ['provider.pricess.5002', '0', 'did you mean provider.prices?'],
    ['wallet.mint_cap', '5', 'did you mean wallet.mint_cap_sats?'],
    ['provider.max_fee_percent', '3', 'did you mean wallet.max_fee_percent?'],
    ['node.mode', 'hots', 'is one of host, provider, both; did you mean host?'],
    ['node.relays', 'wss://x', 'must be a list'],
    ['provider.concurrency', 'many', 'must be a number'],
    ['provider.concurrency', '0', 'must be at least 1'],
    ['provider.prices.5002', '4000', 'must say millisats, as { amount_msats = 2000 }, or be 0 for free'],
    ['provider.prices.6002', '0', 'a kind from 5000 to 5999'],
  ])('%s = %s', (key, value, words) => {
    expect(() => set(key, value)).toThrow(words)
    expect(() => set(key, value)).not.toThrow(/Invalid|Unrecognized|expected/)
  })

  it('takes 0 for a whole price as free, and its parts can be set afterwards', () => {
    const path = join(tempDir(), 'config.toml')
    expect(setConfigValue(path, 'provider.prices.5002', '0').provider.prices).toEqual({ 5002: { amount_msats: 0, unit: 'job' } })
    expect(setConfigValue(path, 'provider.prices.5002.unit', '1k_chars').provider.prices).toEqual({
      5002: { amount_msats: 0, unit: '1k_chars' },
    })
    expect(() => getConfigValue(loadConfig(path), 'provider.price')).toThrow('did you mean provider.prices?')
  })
})
