/** Where control groups are looked for, and what is written into them, in a tree that only looks like one. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { findGroupHome, joinGroup, makeGroup, quellGroup, removeGroup } from '../../../src/runtime/local/cgroups.ts'
import { tempDir } from '../../support/temp.ts'

/** @param own lines of /proc/self/cgroup @param mounts lines of its mountinfo */
function proc(own: readonly string[], mounts: readonly string[]): string {
  const dir = tempDir()
  writeFileSync(join(dir, 'cgroup'), `${own.join('\n')}\n`)
  writeFileSync(join(dir, 'mountinfo'), `${mounts.join('\n')}\n`)
  return dir
}

const mountOf = (point: string, type: string, options: string, root = '/') =>
  `31 23 0:28 ${root} ${point} rw,relatime shared:9 - ${type} ${type} rw,${options}`

function unifiedTree(handedDown: Readonly<Record<string, string>>): string {
  const top = tempDir()
  for (const [path, controllers] of Object.entries(handedDown)) {
    mkdirSync(join(top, path), { recursive: true })
    writeFileSync(join(top, path, 'cgroup.subtree_control'), `${controllers}\n`)
  }
  return top
}

describe('version 2', () => {
  const own = '/user.slice/app.slice/pylon.service'

  test('is the nearest group above that hands memory and processes down', () => {
    const top = unifiedTree({
      '.': 'cpu memory pids',
      'user.slice': 'cpu memory pids',
      'user.slice/app.slice': 'memory pids',
      [`.${own}`]: '',
    })
    const found = findGroupHome(proc([`0::${own}`], [mountOf(top, 'cgroup2', 'nsdelegate')]))
    expect(found).toEqual({ version: 2, dir: join(top, 'user.slice/app.slice') })
    expect(readdirSync(join(top, 'user.slice/app.slice')).sort()).toEqual(['cgroup.subtree_control', 'pylon.service'])
  })

  test('is none where nothing hands them down', () => {
    const top = unifiedTree({ '.': 'cpu', 'user.slice': 'memory', 'user.slice/app.slice': 'pids', [`.${own}`]: '' })
    expect(findGroupHome(proc([`0::${own}`], [mountOf(top, 'cgroup2', 'nsdelegate')]))).toBeUndefined()
  })

  test('holds memory with what the guest program takes, processes, and CPU where it is counted', async () => {
    const dir = tempDir()
    const [group = ''] = makeGroup({ version: 2, dir }, 'local-0123', { memoryMib: 64, processes: 9, vcpus: 2 })
    const read = (name: string) => readFileSync(join(group, name), 'utf8')
    expect([read('memory.max'), read('pids.max')]).toEqual([String(192 * 1024 ** 2), '9'])
    expect(existsSync(join(group, 'cpu.max'))).toBe(false)
    writeFileSync(join(group, 'cpu.max'), 'max 100000')
    expect(makeGroup({ version: 2, dir }, 'local-0123', { memoryMib: 64, processes: 9, vcpus: 2 })).toEqual([group])
    expect(read('cpu.max')).toBe('200000 100000')
  })
})

test('version 1 is a folder for each controller, as far as the mount shows them', async () => {
  const [pids, memory] = [tempDir(), tempDir()]
  const lines = [mountOf(pids, 'cgroup', 'pids', '/docker/x'), mountOf(memory, 'cgroup', 'memory')]
  mkdirSync(join(memory, 'job'))
  const home = findGroupHome(proc(['4:memory:/job', '3:pids:/docker/x', '0::/'], lines))
  expect(home).toEqual({ version: 1, pids, memory: join(memory, 'job'), cpu: undefined })
  if (home === undefined) return
  const dirs = makeGroup(home, 'local-0123', { memoryMib: 1, processes: 9, vcpus: undefined })
  expect(dirs).toEqual([join(pids, 'pylon-local-0123'), join(memory, 'job/pylon-local-0123')])
  expect(readFileSync(join(dirs[1] ?? '', 'memory.limit_in_bytes'), 'utf8')).toBe(String(129 * 1024 ** 2))
})

test('is none where there is no such thing', () => {
  expect(findGroupHome(tempDir())).toBeUndefined()
  expect(findGroupHome(proc(['0::/'], []))).toBeUndefined()
})

test('a command joins all folders before it begins, or does not begin', () => {
  const [a, b] = [tempDir(), tempDir()]
  const [file = '', ...args] = joinGroup([a, b], ['echo', 'a  b', '$HOME'])
  expect(execFileSync(file, args, { encoding: 'utf8' })).toBe('a  b $HOME\n')
  for (const dir of [a, b]) expect(readFileSync(join(dir, 'cgroup.procs'), 'utf8')).toBe('0\n')
  const [sh = '', ...rest] = joinGroup([join(a, 'none')], ['echo', 'ran'])
  expect(() => execFileSync(sh, rest, { stdio: 'pipe' })).toThrow(expect.objectContaining({ status: 125 }))
  expect(joinGroup([], ['echo'])).toEqual(['echo'])
})

test('a group is quelled before it is killed: it forks no more, and ends at once where the kernel can do that', () => {
  const [v1, v2] = [tempDir(), tempDir()]
  for (const dir of [v1, v2]) writeFileSync(join(dir, 'pids.max'), '512')
  writeFileSync(join(v2, 'cgroup.kill'), '')
  quellGroup([v1, v2, join(v1, 'none')])
  for (const dir of [v1, v2]) expect(readFileSync(join(dir, 'pids.max'), 'utf8')).toBe('0')
  expect(readFileSync(join(v2, 'cgroup.kill'), 'utf8')).toBe('1')
  expect(existsSync(join(v1, 'cgroup.kill'))).toBe(false)
})

test('a group that is gone already is no trouble', async () => {
  const dir = join(tempDir(), 'group')
  mkdirSync(dir)
  await removeGroup([dir, join(dir, 'none')], systemClock)
  expect(existsSync(dir)).toBe(false)
})
