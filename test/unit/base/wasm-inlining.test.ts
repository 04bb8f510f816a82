/** The flags for wasm are ones that the V8 under us knows: an unknown one would put a complaint on every start's stderr. */
import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'

test('no flag is unknown to this V8', () => {
  const module = new URL('../../../src/base/wasm-inlining.ts', import.meta.url).href
  const script = `import { inlineMoreWasm } from ${JSON.stringify(module)}; inlineMoreWasm(); console.log('done')`
  const output = execFileSync('/bin/sh', ['-c', '"$0" --input-type=module -e "$1" 2>&1', process.execPath, script], { encoding: 'utf8' })
  expect(output).not.toContain('unrecognized flag')
  expect(output).toContain('done')
})
