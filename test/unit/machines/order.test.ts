/** What a session token becomes: part of what the adapter is asked for, and of the environment only where the whole guest is told by it. */
import { expect, test } from 'vitest'
import { runtimesConfig } from '../../../src/base/config-runtimes.ts'
import { controlCommand } from '../../../src/nostr/control/commands.ts'
import type { RuntimeClass } from '../../../src/provider/machines/classes.ts'
import { adapterInput, orderProvision } from '../../../src/provider/machines/order.ts'

const TOKEN = 'ab'.repeat(32)
const OWNER = 'cd'.repeat(32)

function inputFor(provider: 'local' | 'fly', token?: string) {
  const classes = [{ name: 'c', provider, price_msats_per_hour: 0, capacity: 1 }]
  const entry = runtimesConfig.parse({ classes }).classes[0] as RuntimeClass
  const fields = { relay_urls: ['wss://relay.test'], ...(token === undefined ? {} : { session_token: token }) }
  const command = controlCommand.parse({ command: 'provision', provider, protocol: 'pi', entry_command: 'agent', ...fields })
  if (command.command !== 'provision') throw new Error('no provision')
  const runtimeId = `${provider}-0123456789abcdef`
  const context = { runtimeId, owner: OWNER, botPubkey: null, requireIsolation: false, isLeased: false }
  const order = orderProvision(command, entry, context)
  return adapterInput({ runtimeId, ownerPubkey: OWNER, protocol: 'pi', spec: order.spec }, order.input)
}

test('a session is part of what the adapter is asked for', () => {
  expect(inputFor('local', TOKEN).session).toEqual({ token: TOKEN, relays: ['wss://relay.test'] })
  expect(inputFor('local').session).toBeUndefined()
})

test('the token is in the environment of a remote image alone: elsewhere an agent could pass for its guest', () => {
  expect(inputFor('fly', TOKEN).env).toMatchObject({
    PYLON_SESSION_TOKEN: TOKEN,
    PYLON_OWNER_PUBKEY: OWNER,
    PIKA_RELAY_URLS: 'wss://relay.test',
  })
  expect(JSON.stringify(inputFor('local', TOKEN).env)).not.toContain(TOKEN)
  expect(inputFor('fly').env).not.toHaveProperty('PYLON_SESSION_TOKEN')
})
