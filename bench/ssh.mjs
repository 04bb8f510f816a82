// A throw-away sshd on loopback with keys and configuration of its own, as a peer for conversations with agents: nothing of the system's is
// read or written. As root, where the machine has no user `sshd`, it runs in a mount namespace that has one.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const sshd = process.env.SSHD ?? '/usr/sbin/sshd'

/** Why there can be none here; undefined where there can. */
export function noSshd() {
  return existsSync(sshd) ? undefined : `there is no ${sshd} (Debian: openssh-server; SSHD=PATH names another one)`
}

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

/** @returns {Promise<{ stop(): void, open(command: string): ReturnType<typeof connection> }>} */
export async function startSshd() {
  const dir = mkdtempSync(join(tmpdir(), 'pys-'))
  const remove = () => rmSync(dir, { recursive: true, force: true })
  try {
    return await startIn(dir, remove)
  } catch (error) {
    // One that did not come up leaves nothing.
    remove()
    throw error
  }
}

async function startIn(dir, remove) {
  const at = (name) => join(dir, name)
  for (const name of ['host', 'user']) execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', at(name)])
  const port = await freePort()
  const settings = {
    ...{ Port: port, ListenAddress: '127.0.0.1', HostKey: at('host'), AuthorizedKeysFile: at('user.pub'), PidFile: 'none' },
    ...{ StrictModes: 'no', UsePAM: 'no', PermitRootLogin: 'yes', PasswordAuthentication: 'no', PrintMotd: 'no', UseDNS: 'no' },
  }
  const lines = (of) =>
    Object.entries(of)
      .map(([name, value]) => `${name} ${value}\n`)
      .join('')
  writeFileSync(at('sshd_config'), lines(settings))
  const client = {
    ...{ HostName: '127.0.0.1', Port: port, User: userInfo().username, IdentityFile: at('user'), IdentitiesOnly: 'yes' },
    ...{ UserKnownHostsFile: at('known'), GlobalKnownHostsFile: '/dev/null', StrictHostKeyChecking: 'yes', BatchMode: 'yes' },
  }
  writeFileSync(at('known'), `[127.0.0.1]:${port} ${readFileSync(at('host.pub'), 'utf8')}`)
  writeFileSync(at('ssh_config'), `Host host\n${lines(client)}`)

  const child = spawn(...daemonCommand(dir, [sshd, '-D', '-e', '-f', at('sshd_config')]), { stdio: ['ignore', 'ignore', 'pipe'] })
  // One that dies before it is stopped, too.
  child.once('exit', remove)
  let said = ''
  await new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`sshd ended with ${code}: ${said}`)))
    child.once('error', reject)
    child.stderr.on('data', (chunk) => {
      said += chunk
      if (said.includes('Server listening')) resolve()
    })
  })
  return {
    open: (command) => connection(at('ssh_config'), command),
    stop() {
      child.kill()
      remove()
    },
  }
}

function daemonCommand(dir, command) {
  if (process.getuid?.() !== 0 || /^sshd:/m.test(readFileSync('/etc/passwd', 'utf8'))) return [command[0], command.slice(1)]
  const passwd = join(dir, 'passwd')
  writeFileSync(passwd, `${readFileSync('/etc/passwd', 'utf8')}sshd:x:2222:65534::/run/sshd:/usr/sbin/nologin\n`)
  const script = `mount --bind ${passwd} /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"`
  return ['unshare', ['--mount', 'sh', '-c', script, 'sh', ...command]]
}

/** `ssh host COMMAND`: lines of JSON go in, and come out as they are. */
function connection(config, command) {
  const child = spawn('ssh', ['-F', config, 'host', command], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    send: (message) => void child.stdin.write(`${JSON.stringify(message)}\n`),
    async next() {
      const { done, value } = await lines.next()
      if (done) throw new Error('the connection ended')
      return JSON.parse(value)
    },
    async close() {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.stdin.end()
      await ended
    },
  }
}
