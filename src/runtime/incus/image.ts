/** Builds the two images that Pylon runs on: a tiny one of busybox alone, and a Debian one that a full guest needs. */
import { accessSync, constants, readFileSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { messageOf, PylonError } from '../../base/errors.ts'
import { outputOf } from '../../base/processes.ts'
import { type TarEntry, tarOf } from './tar.ts'

export type ImageKind = 'busybox' | 'debian'

/** What a mirror may take. */
const BUILD_MS = 1_800_000
const packed = promisify(gzip)
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' }

/**
 * PID 1 of both: brings nothing up but the guest, reaps what it leaves behind (zombies would use up limits.processes),
 * and ends when told to.
 */
const initScript = (shell: string) => `#!${shell}
trap 'exit 0' PWR TERM INT
tries=0
while [ ! -x /etc/pylon/start ] && [ "$tries" -lt 3000 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
[ ! -x /etc/pylon/start ] || /etc/pylon/start </dev/null >/dev/null 2>&1 &
while :; do
  sleep 3600 &
  wait $!
done
`

const metadataYaml = (
  kind: ImageKind,
  guest: 'shell' | 'full',
  release: string,
) => `architecture: ${ARCHITECTURES[process.arch] ?? process.arch}
creation_date: 1700000000
properties:
  description: Pylon guest on ${kind}
  os: ${kind}
  release: "${release}"
  pylon.guest: ${guest}
`

/**
 * A unified image tarball (metadata.yaml and rootfs/), for importImage.
 * @throws runtime_unsupported when what it is made from is not installed; runtime_failed when a step fails
 */
export async function buildImage(
  kind: ImageKind,
  options: { readonly suite?: string | undefined; readonly mirror?: string | undefined } = {},
): Promise<Buffer> {
  const busybox = findProgram('busybox')
  if (busybox === undefined || !isStatic(busybox)) {
    throw new PylonError('runtime_unsupported', 'The image needs a static busybox: install the package busybox-static.')
  }
  return kind === 'busybox' ? buildBusybox(busybox) : buildDebian(busybox, options.suite ?? 'bookworm', options.mirror)
}

async function buildBusybox(busybox: string): Promise<Buffer> {
  const stdout = await outputOf({ argv: [busybox, '--list'], env: {}, timeoutMs: 10_000, maxBytes: MAX_OUTPUT_BYTES })
  const applets = stdout
    .split('\n')
    .filter((applet) => /^[a-z0-9[][a-z0-9_.[-]*$/.test(applet) && applet !== 'busybox' && applet !== 'init')
  const dir = (path: string, mode = 0o755): TarEntry => ({ type: 'directory', path: `rootfs/${path}`, mode })
  const file = (path: string, data: string | Uint8Array, mode = 0o644): TarEntry => ({ type: 'file', path: `rootfs/${path}`, mode, data })
  const dirs = ['bin', 'sbin', 'etc', 'dev', 'proc', 'sys', 'run', 'root', 'var', 'var/lib', 'usr', 'usr/bin', 'usr/sbin', 'opt', 'mnt']
  const tar = tarOf([
    { type: 'file', path: 'metadata.yaml', mode: 0o644, data: metadataYaml('busybox', 'shell', '1') },
    { type: 'directory', path: 'rootfs', mode: 0o755 },
    ...dirs.map((path) => dir(path)),
    dir('tmp', 0o1777),
    file('bin/busybox', await readFile(busybox), 0o755),
    ...applets.map((applet): TarEntry => ({ type: 'symlink', path: `rootfs/bin/${applet}`, target: 'busybox' })),
    file('sbin/init', initScript('/bin/sh'), 0o755),
    file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n'),
    file('etc/group', 'root:x:0:\nnogroup:x:65534:\n'),
    file('etc/hosts', '127.0.0.1 localhost\n'),
  ])
  return packed(tar, { level: 6 })
}

/** By debootstrap, which needs root and a Debian mirror; about half a minute. */
async function buildDebian(busybox: string, suite: string, mirror: string | undefined): Promise<Buffer> {
  const debootstrap = findProgram('debootstrap')
  if (debootstrap === undefined || process.getuid?.() !== 0) {
    throw new PylonError('runtime_unsupported', 'The Debian image needs debootstrap and root: install debootstrap and run this with sudo.')
  }
  const work = await mkdtemp(join(tmpdir(), 'pylon-image-'))
  try {
    const rootfs = join(work, 'rootfs')
    const env = { ...process.env, PATH: searchPath().join(delimiter), DEBIAN_FRONTEND: 'noninteractive' }
    const args = ['--variant=minbase', suite, rootfs, ...(mirror === undefined ? [] : [mirror])]
    const limits = { env, timeoutMs: BUILD_MS, maxBytes: MAX_OUTPUT_BYTES }
    await outputOf({ argv: [debootstrap, ...args], ...limits })
    // minbase has no init, and nothing that sets up the loopback.
    await copyFile(busybox, join(rootfs, 'bin/busybox'))
    await writeFile(join(rootfs, 'sbin/init'), initScript('/bin/bash'), { mode: 0o755 })
    // debootstrap copies those of the host, which are no guest's business.
    for (const name of ['resolv.conf', 'hostname']) await rm(join(rootfs, 'etc', name), { force: true })
    await empty(join(rootfs, 'var/lib/apt/lists'))
    await empty(join(rootfs, 'var/cache/apt/archives'))
    await mkdir(join(rootfs, 'opt'), { recursive: true })
    await writeFile(join(work, 'metadata.yaml'), metadataYaml('debian', 'full', suite))
    const tarball = join(work, 'image.tar.gz')
    await outputOf({ argv: ['tar', '-C', work, '--numeric-owner', '-czf', tarball, 'metadata.yaml', 'rootfs'], ...limits })
    return await readFile(tarball)
  } catch (error) {
    throw new PylonError('runtime_failed', `The Debian image could not be built: ${messageOf(error).slice(0, 2000)}`, { cause: error })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

async function empty(dir: string): Promise<void> {
  for (const name of await readdir(dir)) await rm(join(dir, name), { recursive: true, force: true })
}

/** Debian keeps debootstrap in /usr/sbin, which is not on everybody's path. */
function searchPath(): string[] {
  return [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin'].filter(
    (dir) => dir !== '',
  )
}

function findProgram(name: string): string | undefined {
  const paths = searchPath().map((dir) => join(dir, name))
  return paths.find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Whether an ELF file names no interpreter: its program headers have no PT_INTERP (type 3). */
function isStatic(path: string): boolean {
  const elf = readFileSync(path)
  if (elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2) return false
  const offset = Number(elf.readBigUInt64LE(32))
  const [size, count] = [elf.readUInt16LE(54), elf.readUInt16LE(56)]
  for (let i = 0; i < count; i++) if (elf.readUInt32LE(offset + i * size) === 3) return false
  return true
}
