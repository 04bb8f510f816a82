import { expect, test } from 'vitest'
import { managedRoutes } from '../../../src/control/contract/managed.ts'

test('what is no relay is refused before a machine is asked for', () => {
  const { request } = managedRoutes.makeAgent
  expect(request.safeParse({ relays: ['ws://127.0.0.1:7777', 'wss://relay.example.com/path'] }).success).toBe(true)
  for (const wrong of ['notaurl', 'https://relay.example.com', 'wss://', ''])
    expect(request.safeParse({ relays: [wrong] }).error?.message).toContain('one looks like wss://relay.example.com')
})
