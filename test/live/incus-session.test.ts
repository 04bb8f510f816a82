/** A session with an agent in a real Incus container that has no network: from provision to the first encrypted answer, and after a restart. */
import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { silentLogger } from '../../src/base/logger.ts'
import { RelayDoors } from '../../src/provider/machines/doors.ts'
import type { RuntimeAdapter } from '../../src/runtime/adapter.ts'
import { decodeRuntimeSpec } from '../../src/runtime/contract/spec.ts'
import { guestScript } from '../../src/runtime/guest-script.ts'
import { buildImage } from '../../src/runtime/incus/image.ts'
import { importImage } from '../../src/runtime/incus/images.ts'
import { IncusAdapter } from '../../src/runtime/incus/incus-adapter.ts'
import { setUpIncus } from '../../src/runtime/incus/setup.ts'
import { getRuntime, insertRuntime, type RuntimeRow } from '../../src/store/selling/runtimes.ts'
import { ensureIncus, type IncusDaemon, startIncusDaemon } from '../support/incus-daemon.ts'
import { startSandbox, type TestSandbox } from '../support/sandbox.ts'
import { testScope } from '../support/scope.ts'
import { SessionOwner, textOf } from '../support/session-owner.ts'

const missing = ensureIncus()
const root = new URL('../..', import.meta.url).pathname
const POOL = 'pylon'
const never = new AbortController().signal

describe.skipIf(missing !== undefined)(`sessions in a real Incus${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  const scope = testScope()
  let daemon: IncusDaemon
  let adapter: RuntimeAdapter
  let hostDir: string
  let doorsDir: string
  let sandbox: TestSandbox
  let owner: SessionOwner

  beforeAll(async () => {
    const umask = process.umask(0o022)
    doorsDir = mkdtempSync(join(tmpdir(), 'pyd-'))
    hostDir = mkdtempSync(join(tmpdir(), 'pylon-opt-'))
    chmodSync(hostDir, 0o755)
    copyFileSync(process.execPath, join(hostDir, 'node'))
    const bundling = `import(${JSON.stringify(join(root, 'scripts/bundle.mjs'))}).then((it) => it.bundle(${JSON.stringify(hostDir)}))`
    execFileSync(process.execPath, ['-e', bundling], { stdio: 'inherit' })
    for (const protocol of ['acp', 'pi'])
      copyFileSync(join(root, `test/support/scripted-${protocol}-child.mjs`), join(hostDir, `${protocol}.mjs`))
    execFileSync('chmod', ['-R', 'a+rX', hostDir])
    daemon = await startIncusDaemon()
    process.umask(umask)
    daemon.cli('storage', 'create', POOL, 'btrfs', 'size=4GiB')
    const client = daemon.client('pylon')
    await setUpIncus(client, { pool: POOL, profile: 'default', hostPaths: [hostDir] })
    await importImage(client, 'pylon/debian', await buildImage('debian'))
    adapter = new IncusAdapter(
      {
        endpoint: { socketPath: daemon.socketPath },
        project: 'pylon',
        profile: 'default',
        pool: POOL,
        nodeId: 'live-test',
        images: { managed: 'pylon/debian', oneShot: 'pylon/debian' },
        guest: { hostDir, command: [join(hostDir, 'node'), join(hostDir, 'pylon.cjs'), 'guest'], shellScript: guestScript() },
        allowedHostPaths: [hostDir],
        defaults: { vcpus: 1, memoryMib: 512, rootDiskGib: 1, processes: 256 },
      },
      scope.child('adapter'),
    )
    // Last: a sandbox lets nobody else into what this process makes.
    sandbox = await startSandbox()
    owner = new SessionOwner(sandbox.relayUrl)
  }, 280_000)

  afterAll(async () => {
    for (const { handle } of (await adapter?.listOwned?.()) ?? []) await adapter.teardown(handle, { keepVolume: false })
    await scope.close()
    await owner?.node.stop()
    await sandbox?.stop()
    await daemon?.destroy()
    for (const dir of [hostDir, doorsDir]) if (dir !== undefined) rmSync(dir, { recursive: true, force: true })
  }, 120_000)

  test.each(['acp', 'pi'] as const)(
    'an agent over %s is talked to, has no other way out, and goes on after a restart',
    async (protocol) => {
      const id = `incus-${protocol === 'pi' ? '1' : '2'}${Date.now().toString(16).padStart(15, '0')}`
      const { store, nostr } = owner.node
      const spec = decodeRuntimeSpec({
        identity: { runtime_id: id, instance_name: id },
        entry_command: `${hostDir}/node ${hostDir}/${protocol}.mjs`,
        mounts: [{ kind: 'persistent_volume', guest_path: '/data', source: `v-${protocol}`, mode: 'read_write', required: true }],
        policies: { restart_policy: 'on_failure', retention_policy: 'keep_until_stopped' },
      })
      const session = { token: owner.token, relays: [sandbox.relayUrl] }
      await store.write(
        insertRuntime({
          ...{
            id,
            provider: 'incus',
            ownerPubkey: owner.pubkey,
            runtimeClass: 'c',
            protocol,
            region: null,
            botPubkey: null,
            keepVolume: false,
          },
          ...{ spec: JSON.parse(JSON.stringify(spec)), expiresAt: null, input: { session }, reason: 'test', at: Date.now() },
        }),
      )
      const openDoors = () => new RelayDoors({ scope: scope.child('doors'), store, logger: silentLogger, nostr, dir: doorsDir })
      const doors = openDoors()
      const doorSocket = (await doors.open(getRuntime(store, id) as RuntimeRow))?.socketPath ?? ''
      const begun = performance.now()
      const { handle } = await adapter.provision(
        { runtimeId: id, ownerPubkey: owner.pubkey, spec, protocol, session: { ...session, doorSocket } },
        never,
      )
      const readiness = async () => {
        const { state, message } = await adapter.readiness(handle, never)
        return `${state} ${state === 'ready' ? '' : `${message} ${(await adapter.logs?.(handle, { tailBytes: 3000 })) ?? ''}`}`
      }
      await expect.poll(readiness, { timeout: 60_000, interval: 100 }).toBe('ready ')
      const readyMs = performance.now() - begun
      const talk = await owner.meet(id)
      expect(textOf(await talk.ask('say hello'))).toBe('hello')
      console.log(`${protocol}: ready after ${Math.round(readyMs)} ms, first answer after ${Math.round(performance.now() - begun)} ms`)
      const out = textOf(await talk.ask('run cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d " \\n"'))
      expect(out).toBe('lo')

      const [welcome] = (await owner.create(await owner.hello(id), id)).welcomes
      const call = {
        groupId: talk.groupId,
        wrapperEventIdHex: welcome?.wrapperEventId ?? '',
        welcomeEventJson: JSON.stringify(welcome?.rumor),
      }
      expect(await adapter.processWelcome(handle, call)).toMatchObject({ processed: true, group_id: talk.groupId })

      const slow = await talk.say('slow begun')
      const begins = (times: number) =>
        expect
          .poll(
            () =>
              talk
                .heard(slow)
                .flatMap(({ body }) => (body.type === 'text_delta' ? [body.delta] : []))
                .join('')
                .match(/begun/g)?.length,
            {
              timeout: 60_000,
              interval: 50,
            },
          )
          .toBe(times)
      await begins(1)
      daemon.cli('stop', '--force', '--project', 'pylon', `pylon-${id.slice(6)}`)
      await adapter.recover?.(handle, never)
      await begins(2)
      await talk.say({ type: 'abort' })
      expect((await talk.answer(slow)).at(-1)).toEqual({ type: 'done' })
      const again = await talk.ask('say again')
      expect(textOf(again)).toBe('again')
    },
    200_000,
  )
})
