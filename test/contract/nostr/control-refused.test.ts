/** Commands and answers of the control plane that relays refuse: the one who asked is told at once, the one who answers finds another way. */
import { expect, it, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { exchange } from '../../../src/customer/machines/exchange.ts'
import { CONTROL_CMD_KIND, CONTROL_ERROR_KIND } from '../../../src/nostr/control/envelopes.ts'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { ControlPlane } from '../../../src/provider/machines/control-plane.ts'
import { MachineService } from '../../../src/provider/machines/service.ts'
import { createWallets, WALLET_DRAIN_MS } from '../../../src/wallet/wallets.ts'
import { nostrBench } from '../../support/nostr-bench.ts'
import type { TestNostr } from '../../support/nostr-node.ts'
import { testScope } from '../../support/scope.ts'
import type { ScriptedRelayOptions } from '../../support/scripted-relay.ts'
import { testSigner } from '../../support/test-signer.ts'

const { relay, node, cleanups } = nostrBench()
const until = (check: () => void) => vi.waitFor(check, { timeout: 30_000, interval: 20 })
const nowS = () => Math.floor(Date.now() / 1000)

const refusing = (kind: number): ScriptedRelayOptions => ({
  onFrame(frame, connection) {
    const event = frame[1] as NostrEvent
    if (frame[0] !== 'EVENT' || event.kind !== kind) return false
    connection.send(['OK', event.id, false, 'blocked: ephemeral events are not passed on'])
    return true
  },
})

const common = ({ store, nostr }: TestNostr) => ({ scope: testScope(), store, nostr, clock: systemClock, logger: silentLogger })

it('ends a command that every relay refuses in their words, long before its time is over', async () => {
  const one = await relay(refusing(CONTROL_CMD_KIND))
  const at = node({ relays: [one.url] })
  const order = { server: testSigner(7).pubkey, requestId: 'r1', idempotencyKey: 'k1', timeoutMs: 3_600_000 }
  await expect(exchange(common(at), { ...order, command: () => ({ command: 'list_runtimes' }) })).rejects.toMatchObject({
    code: 'relay_refused',
    message: expect.stringContaining('blocked: ephemeral events are not passed on'),
  })
}, 20_000)

it('sends an answer that its own relays refuse where the requester reads', async () => {
  const own = await relay(refusing(CONTROL_ERROR_KIND))
  const theirs = await relay()
  const at = node({ relays: [own.url] })
  at.dialer.allow(theirs.url, true)
  const requester = testSigner(7)
  own.stored.push(requester.sign({ kind: 10_002, created_at: nowS(), tags: [['r', theirs.url, 'read']], content: '' }))
  const config = () => DEFAULT_CONFIG
  const walletScope = testScope()
  const wallets = createWallets({ ...common(at), scope: walletScope, config, dialer: at.dialer, invoiceNetwork: 'bcrt' })
  const ofMachines = { ...common(at), scope: testScope() }
  const transport = new ControlPlane(ofMachines)
  const machines = new MachineService({ ...ofMachines, transport, config, wallets, network: 'sandbox', adapters: () => [] })
  await machines.start()
  cleanups.push(async () => {
    await machines.close()
    await walletScope.close(WALLET_DRAIN_MS)
  })
  const server = at.keyring.node().pubkey
  const isCommandReq = (frame: unknown[]) => JSON.stringify(frame).includes(String(CONTROL_CMD_KIND))
  await until(() => expect(own.received('REQ').some(isCommandReq)).toBe(true))
  const content = requester.nip44Encrypt(server, '{"no":"command"}')
  own.push(requester.sign({ kind: CONTROL_CMD_KIND, created_at: nowS(), tags: [['p', server]], content }))
  await until(() => {
    const answers = theirs.received('EVENT').map((frame) => frame[1] as NostrEvent)
    expect(answers.filter(({ kind, tags }) => kind === CONTROL_ERROR_KIND && tags.some((tag) => tag[1] === requester.pubkey))).toHaveLength(
      1,
    )
  })
})
