/** The remote substrates through the control plane: every provider with every protocol, over recording HTTP servers. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { RecordingServer } from '../support/recording-http.ts'
import {
  BROKER_TOKEN,
  brokerServer,
  FLY_APP,
  FLY_TOKEN,
  flyServer,
  promptRuntime,
  RUNTIME_TOKEN,
  spawnerServer,
} from '../support/remote-substrates.ts'
import { Rig } from '../support/rig.ts'

interface Answer {
  readonly runtime: { runtime_id: string; provider: string; lifecycle_phase: string; protocol_compatibility: string[]; metadata: object }
  readonly payload: Record<string, unknown>
}

function tokenFile(rig: Rig, name: string, token: string): string {
  const path = join(rig.dir, name)
  writeFileSync(path, token, { mode: 0o600 })
  return path
}

async function startNode(rig: Rig, settings: Readonly<Record<string, string>>): Promise<void> {
  await rig.ok('start', '--sandbox')
  for (const [key, value] of Object.entries(settings)) await rig.ok('config', 'set', key, value, '--sandbox')
}

type Substrate = { readonly server: RecordingServer; readonly settings: Record<string, string>; readonly created: RegExp; left(): number }

const SUBSTRATES = {
  async fly(rig: Rig): Promise<Substrate> {
    const server = await flyServer()
    return {
      server,
      settings: {
        'runtimes.fly.api_base_url': server.url,
        'runtimes.fly.token_file': tokenFile(rig, 'fly', FLY_TOKEN),
        'runtimes.fly.image': 'registry.fly.io/pika-bot:latest',
        'runtimes.fly.app_name': FLY_APP,
      },
      created: /^POST \/v1\/apps\/pika-bot\/machines$/,
      left: () => server.machines.size + server.volumes.size,
    }
  },
  async microvm(): Promise<Substrate> {
    const server = await spawnerServer(1)
    return {
      server,
      settings: { 'runtimes.microvm.spawner_urls': `["${server.url}"]` },
      created: /^POST \/vms$/,
      left: () => server.vms.size,
    }
  },
  async workers(rig: Rig): Promise<Substrate> {
    const server = await brokerServer()
    const runtime = await promptRuntime()
    return {
      server,
      settings: {
        'runtimes.workers.runtime_url': runtime.url,
        'runtimes.workers.runtime_token_file': tokenFile(rig, 'runtime', RUNTIME_TOKEN),
        'runtimes.workers.token_file': tokenFile(rig, 'broker', BROKER_TOKEN),
        'runtimes.workers.base_url': server.url,
      },
      created: /^POST \/agents$/,
      left: () => server.agents.size,
    }
  },
}

test.each(['fly', 'microvm', 'workers'] as const)('%s serves pi and acp through kinds 24910 to 24913', async (provider) => {
  await using rig = new Rig()
  const substrate = await SUBSTRATES[provider](rig)
  await startNode(rig, substrate.settings)
  for (const protocol of ['pi', 'acp'] as const) {
    const args = ['runtime', 'provision', '--provider', provider, '--protocol', protocol, '--command', 'agent', '--json']
    const made = (await rig.ok(...args, '--idempotency-key', protocol)).json<Answer>()
    expect(made.runtime).toMatchObject({ provider, lifecycle_phase: 'ready' })
    expect(made.runtime.protocol_compatibility).toContain(protocol)
    const again = (await rig.ok(...args, '--idempotency-key', protocol)).json<Answer>()
    expect(again.runtime.runtime_id).toBe(made.runtime.runtime_id)
    const id = made.runtime.runtime_id
    const prompted = await rig.run(['runtime', 'prompt', id, 'say relayed', '--json'])
    if (provider === 'workers') expect(prompted.json<Answer>().payload).toMatchObject({ reply: 'relayed' })
    else expect(prompted.stderr).toContain('runtime_unsupported')
    expect((await rig.ok('runtime', 'teardown', id, '--json')).json<Answer>().payload).toMatchObject({ teardown: 'deleted' })
  }
  const run = await rig.run(['runtime', 'run', '--provider', provider, '--json', '--', 'true'])
  expect(run.code).toBe(1)
  expect(run.stderr).toContain(provider)
  expect(substrate.server.calls().filter((call) => substrate.created.test(call))).toHaveLength(2)
  expect(substrate.left()).toBe(0)
  expect(rig.logs()).not.toMatch(new RegExp([FLY_TOKEN, BROKER_TOKEN, RUNTIME_TOKEN].join('|')))
})

test('endpoints that do not answer are named with the next step; a spawner in public is never asked', async () => {
  await using rig = new Rig()
  const spawner = await spawnerServer(1)
  await startNode(rig, { 'runtimes.microvm.spawner_urls': `["${spawner.url}"]` })
  const args = ['runtime', 'provision', '--provider', 'microvm', '--command', 'agent']
  for (const url of ['http://8.8.8.8:8080', 'http://127.0.0.1:1', 'http://169.254.169.254']) {
    const refused = await rig.run([...args, '--spawner-url', url])
    expect(refused.code).toBe(1 + Number(refused.stderr.includes('invalid_request')))
    expect(refused.stderr).toContain(url)
    expect(refused.stderr).toContain('runtimes.microvm.spawner_urls')
  }
  expect(spawner.calls().filter((call) => call.startsWith('POST'))).toEqual([])

  await spawner.close()
  const down = await rig.run(args)
  expect(down.code).toBe(1)
  await expect.poll(async () => (await rig.ok('doctor', '--json')).stdout, { timeout: 20_000 }).toContain(`curl ${spawner.url}/healthz`)

  await rig.ok('config', 'set', 'runtimes.microvm.spawner_urls', '["http://example.com:8080"]', '--sandbox')
  await expect.poll(() => rig.logs(), { timeout: 10_000 }).toContain('http://example.com:8080 is refused')
})
