/**
 * Fly, a vm-spawner of both versions, a workers broker and a runtime behind it, as recording servers that keep state; with
 * machines, each starts in what it makes what an image of the owner would.
 */
import { type RecordingServer, recordingServer, type Scripted } from './recording-http.ts'
import type { RemoteMachines } from './remote-machines.ts'

type Fields = Record<string, unknown>
type Env = Record<string, string>

export const FLY_APP = 'pika-bot'
export const FLY_TOKEN = 'fly-token-of-the-test'
export const BROKER_TOKEN = 'broker-token-of-the-test'
export const RUNTIME_TOKEN = 'runtime-token-of-the-test'

/** The Machines API of one app: volumes can't be deleted while a machine holds them. */
export async function flyServer(
  running?: RemoteMachines,
): Promise<RecordingServer & { volumes: Map<string, Fields>; machines: Map<string, Fields> }> {
  const volumes = new Map<string, Fields>()
  const machines = new Map<string, Fields>()
  let next = 0
  const base = `/v1/apps/${FLY_APP}`
  const server = await recordingServer(async ({ method, path, auth, body }): Promise<Scripted> => {
    if (auth !== `Bearer ${FLY_TOKEN}`) return { status: 401, body: { error: 'unauthorized' } }
    const url = new URL(path, 'http://fly')
    if (!url.pathname.startsWith(base)) return { status: 404, body: { error: 'no such app' } }
    const [, kind = '', id = '', verb = ''] = url.pathname.slice(base.length).split('/')
    const all = kind === 'volumes' ? volumes : machines
    if (id === '' && method === 'GET') return { body: [...all.values()] }
    if (id === '' && method === 'POST') {
      const made = `${kind === 'volumes' ? 'vol_' : 'm'}${++next}`
      all.set(made, { ...(body as Fields), id: made, state: 'created' })
      if (kind === 'machines') running?.boot(made, (body as { config: { env: Env } }).config.env)
      return { body: all.get(made) }
    }
    const found = all.get(id)
    if (found === undefined) return { status: 404, body: { error: `${kind} not found` } }
    if (verb === 'wait') {
      found['state'] = 'started'
      return { body: { ok: true } }
    }
    if (verb === 'stop' || verb === 'start' || verb === 'restart') {
      found['state'] = verb === 'stop' ? 'stopped' : 'started'
      if (verb !== 'stop') await running?.reboot(id)
      return { body: { ok: true } }
    }
    if (method === 'DELETE') {
      const isHeld = [...machines.values()].some((machine) => JSON.stringify(machine['config']).includes(`"${id}"`))
      if (kind === 'volumes' && isHeld) return { status: 412, body: { error: 'volume is attached' } }
      all.delete(id)
      if (kind === 'machines') await running?.destroy(id)
      return { body: { ok: true } }
    }
    return { body: found }
  })
  return Object.assign(server, { volumes, machines })
}

/** A vm-spawner; version 1 tells its capacity and forgets with 500. */
export async function spawnerServer(version: 1 | 2, running?: RemoteMachines): Promise<RecordingServer & { vms: Map<string, Fields> }> {
  const vms = new Map<string, Fields>()
  let next = 0
  const missing = (id: string): Scripted =>
    version === 1
      ? { status: 500, body: { error: `vm not found: ${id}` } }
      : { status: 404, body: { error: 'vm not found', request_id: 'r1' } }
  const show = (id: string): Fields =>
    version === 1
      ? { id, ip: '192.168.83.10', ssh_port: 22, ssh_user: 'root', ssh_private_key: 'PRIVATE KEY', status: 'running' }
      : { id, status: 'running', startup_probe_satisfied: true, guest_ready: true }
  const server = await recordingServer(async ({ method, path, body }): Promise<Scripted> => {
    if (path === '/healthz') return { body: { ok: true, now: '2026-01-01T00:00:00Z', vm_count: vms.size } }
    if (path === '/capacity') {
      if (version === 2) return { status: 404, body: { error: 'not found', request_id: 'r1' } }
      const used = { used_cpus: vms.size, used_memory_mb: vms.size * 1024, vm_count: vms.size }
      return { body: { total_cpus: 8, total_memory_mb: 16_384, max_vms: 8, available_vms: 8 - vms.size, ...used } }
    }
    if (path === '/vms' && method === 'POST') {
      const id = `vm-${String(++next).padStart(8, '0')}`
      vms.set(id, body as Fields)
      running?.boot(id, (body as { guest_autostart: { env: Env } }).guest_autostart.env)
      return { body: show(id) }
    }
    const [, , id = '', verb = ''] = path.split('/')
    if (!vms.has(id)) return method === 'GET' ? { status: 404, body: { error: 'vm not found' } } : missing(id)
    if (verb === 'backup-status') {
      return {
        body: {
          vm_id: id,
          backup_unit_kind: 'durable_home',
          backup_target: `homes/${id}`,
          recovery_point_kind: 'metadata_record',
          freshness: 'healthy',
          latest_recovery_point_name: 'p1',
          latest_successful_backup_at: '2026-01-01T00:00:00Z',
        },
      }
    }
    if (verb === 'recover') await running?.reboot(id)
    if (verb === 'recover' || (verb === 'restore' && version === 2)) return { body: show(id) }
    if (method === 'DELETE') {
      vms.delete(id)
      await running?.destroy(id)
      return { status: 204 }
    }
    return { body: show(id) }
  })
  return Object.assign(server, { vms })
}

/** The broker of workers/agent-demo, with deletion where `deletes`; of an agent that runs it tells what its guest says. */
export async function brokerServer(deletes = true, running?: RemoteMachines): Promise<RecordingServer & { agents: Map<string, Fields> }> {
  const agents = new Map<string, Fields>()
  const seen = (id: string): Fields => {
    if (running === undefined) return {}
    const status = running.status(id)
    if (status?.state !== 'ready') return { status: 'booting' }
    return { status: 'ready', bot_pubkey: status.details?.bot_pubkey, key_package_published_at_ms: 1_700_000_000_000 }
  }
  const settled = { status: 'ready', bot_pubkey: 'ab'.repeat(32), key_package_published_at_ms: 1_700_000_000_000 }
  const server = await recordingServer(async ({ method, path, auth, body }): Promise<Scripted> => {
    if (auth !== `Bearer ${BROKER_TOKEN}`) return { status: 401, body: 'unauthorized', headers: { 'www-authenticate': 'Bearer' } }
    if (path === '/health') return { body: { ok: true, service: 'pika-workers-agent-demo' } }
    if (path === '/agents' && method === 'POST') {
      const asked = body as Fields
      if (asked['brain'] !== undefined && asked['brain'] !== 'pi') return { status: 400, body: { error: 'brain must be pi' } }
      const id = String(asked['id'])
      const { bot_secret_key_hex: _secret, ...shown } = asked
      if (!agents.has(id)) running?.boot(id, asked['guest_env'] as Env)
      agents.set(id, { schema_version: 1, ...(running === undefined ? settled : {}), ...agents.get(id), ...shown })
      return { status: 201, body: { ...agents.get(id), ...seen(id) } }
    }
    const [, kind, id = '', ...rest] = path.split('/')
    const agent = kind === 'agents' ? agents.get(decodeURIComponent(id)) : undefined
    if (method === 'DELETE') {
      if (!deletes) return { status: 404, body: { error: 'not found' } }
      await running?.destroy(id)
      return agents.delete(id) ? { status: 204 } : { status: 404, body: { error: 'agent not found' } }
    }
    if (agent === undefined) return { status: 404, body: { error: 'agent not found' } }
    if (rest.join('/') === 'runtime/process-welcome') {
      const { group_id, wrapper_event_id_hex } = body as { group_id: string; wrapper_event_id_hex: string }
      await running?.welcome(id, `${wrapper_event_id_hex}.json`, body)
      return { body: { group_id, created_group: true, processed_welcomes: 1, mls_group_id_hex: '01', nostr_group_id_hex: '02' } }
    }
    return { body: { ...agent, ...seen(id) } }
  })
  return Object.assign(server, { agents })
}

/** A runtime that says what it is told to say: by the versioned endpoint, or by an older one alone. */
export async function promptRuntime(path: '/v1/runtime/prompt' | '/rpc' | '/reply' = '/v1/runtime/prompt'): Promise<RecordingServer> {
  return recordingServer((request): Scripted => {
    if (request.auth !== `Bearer ${RUNTIME_TOKEN}`) return { status: 401, body: { error: 'unauthorized', message: 'no' } }
    if (request.path !== path) return { status: 404, body: 'no such path' }
    const { message = '', session_id = '' } = request.body as { message?: string; session_id?: string }
    const reply = message.replace(/^say /, '')
    if (path !== '/v1/runtime/prompt') return { body: { reply } }
    return { body: { schema_version: 1, session_id, reply, stop_reason: 'end_turn' } }
  })
}
