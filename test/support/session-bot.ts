/** An agent inside, as small as one can be: says hello, accepts its owner, answers prompts with words and a tool. */
import { unixSeconds } from '../../src/base/clock.ts'
import { identify } from '../../src/nostr/nips/nip01.ts'
import { sealRumor, wrapSeal } from '../../src/nostr/nips/nip59.ts'
import { decodeEnvelope, type EnvelopeBody, encodeEnvelope, envelopeKey } from '../../src/session/envelope.ts'
import { helloTemplate } from '../../src/session/hello.ts'
import type { Sessions } from '../../src/session/sessions.ts'
import type { SessionMessage } from '../../src/session/types.ts'
import { enqueueEvent } from '../../src/store/nostr/outbox.ts'
import { type SessionPeer, startSessionPeer } from './session-peer.ts'
import { testSecretHex } from './test-signer.ts'

export interface BotOrder {
  readonly dir: string
  readonly key: number
  readonly relays: readonly string[]
  readonly owner: string
  readonly protocol: 'pi' | 'acp'
  /** Without them it says no hello. */
  readonly hello?: { readonly runtimeId: string; readonly token: string }
}

export interface Bot extends SessionPeer {
  /** All that it was asked. */
  readonly prompts: readonly string[]
  readonly secretHex: string
}

/** `say X`: X in two pieces; `tool`: with a tool; `fail`: an error; `silence`: nothing. */
export function startBot(order: BotOrder): Bot {
  const { dir, key, relays, owner, protocol } = order
  const prompts: string[] = []
  const peer = startSessionPeer({
    ...{ dir, key, relays, mayInvite: (pubkey: string) => pubkey === owner },
    onMessage: async (message, sessions) => {
      const body = decodeEnvelope(message.content)?.body
      const text = body === undefined ? message.content : 'message' in body ? body.message : body.type
      prompts.push(text)
      await answer(sessions, message, protocol, text)
    },
  })
  const { hello } = order
  if (hello !== undefined) {
    const nowS = unixSeconds(peer.scope.clock)
    const rumor = identify(peer.pubkey, helloTemplate({ botPubkey: peer.pubkey, ...hello, owner, version: 'test', nowS }))
    const event = wrapSeal(sealRumor(peer.signer, rumor, owner, nowS), owner, nowS, peer.signer.random)
    peer.scope.spawn('hello', async () => {
      const at = peer.scope.clock.now()
      await peer.store.write(enqueueEvent({ key: 'test:hello', event, relays, notAfter: at + 600_000, at }))
      peer.nostr.nudgeOutbox()
    })
  }
  return Object.assign(peer, { prompts, secretHex: testSecretHex(key) })
}

async function answer(sessions: Sessions, message: SessionMessage, protocol: string, text: string): Promise<void> {
  const [verb = '', ...rest] = text.split(' ')
  const words = rest.join(' ')
  const call = { call_id: 't1' }
  const bodies: EnvelopeBody[] = {
    say: [
      { type: 'text_delta', delta: words.slice(0, 3) },
      { type: 'text_delta', delta: words.slice(3) },
      { type: 'assistant_text', text: words },
      { type: 'done' },
    ] as EnvelopeBody[],
    tool: [
      { type: 'tool_call', ...call, tool_name: 'look', input: { path: 'a' } },
      { type: 'tool_call_update', ...call, status: 'completed' },
      { type: 'assistant_text', text: 'looked' },
      { type: 'done' },
    ] as EnvelopeBody[],
    fail: [{ type: 'error', message: 'no model' }] as EnvelopeBody[],
    silence: [],
  }[verb] ?? [{ type: 'done' }]
  const session_id = `${protocol}-${message.groupId.slice(0, 16)}`
  for (const [i, body] of bodies.entries()) {
    const idempotency_key = envelopeKey(session_id, message.seq * 100 + i)
    await sessions.send(message.groupId, { content: encodeEnvelope({ protocol, session_id, idempotency_key, body }) }, `${message.id}:${i}`)
  }
}
