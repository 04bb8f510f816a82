/** Names of mints, as strangers may write them. */
import { describe, expect, it } from 'vitest'
import { normaliseMintUrl } from '../../../../src/wallet/ecash/token.ts'

describe('normaliseMintUrl', () => {
  it('gives one name to one mint', () => {
    for (const url of ['https://Mint.Example', 'https://mint.example/', 'https://mint.example:443//', 'https://mint.example/?a=b#c']) {
      expect(normaliseMintUrl(url)).toBe('https://mint.example')
    }
    expect(normaliseMintUrl('https://mint.example/Bitcoin/')).toBe('https://mint.example/Bitcoin')
    expect(() => normaliseMintUrl('file:///etc/passwd')).toThrow(/http/)
    expect(() => normaliseMintUrl('mint')).toThrow(/URL/)
  })
})
