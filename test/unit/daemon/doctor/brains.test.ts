/** What doctor says of brains that are programs of others. */
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { checkBrains } from '../../../../src/daemon/doctor/brain-checks.ts'
import { insertAgent } from '../../../../src/store/agents/agents.ts'
import { openStore } from '../../../support/store.ts'
import { tempDir } from '../../../support/temp.ts'

it('warns of acp brains where bubblewrap is not to be found, and of no others', async () => {
  const store = openStore(join(tempDir(), 'a.db'))
  onTestFinished(() => store.close())
  let asked = 0
  const without = async () => {
    asked++
    return { path: null, reason: 'bubblewrap is not installed', nextStep: 'Install it.' }
  }
  const add = async (name: string, letter: string, type: string) => {
    const described = { about: '', brain: { type }, relays: [], heartbeatS: 900, autonomy: 'bounded', dmScheme: 'auto', allow: [] } as const
    const budget = { per_tx_sats: 9, per_tick_sats: 9, per_day_sats: 9 }
    const keys = { pubkey: letter.repeat(64), npub: `npub1${letter}`, accountIndex: letter.charCodeAt(0) }
    await store.write(insertAgent({ agent: { ...described, ...keys, name, budget, tickFeeSats: 0, profile: {} }, at: 1 }))
  }
  await add('bob', 'b', 'exec')
  expect(await checkBrains(store, without)).toEqual([])
  expect(asked).toBe(0)
  await add('ada', 'a', 'acp')
  expect(await checkBrains(store, without)).toEqual([
    {
      name: 'brains',
      state: 'warning',
      message:
        'The commands that think for ada run without a fence (bubblewrap is not installed): each can reach the control socket as you, and so every sat.',
      next_step: expect.stringContaining('apt install bubblewrap'),
    },
  ])
  expect(await checkBrains(store, async () => ({ path: '/usr/bin/bwrap', options: [] }))).toMatchObject([{ name: 'brains', state: 'ok' }])
})
