/** The prompt socket of a local guest, held so that the guest cannot put another in its place. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'

/** Linux: a descriptor that only names what it is of. */
const O_PATH = 0o10000000

/**
 * A socket by descriptor: what was looked at is what is connected to, whatever its guest puts in the place meanwhile; and a
 * path may be longer than a socket address. Undefined where there is no socket.
 */
export function openSocket(path: string): number | undefined {
  let fd: number
  try {
    fd = openSync(path, O_PATH | constants.O_NOFOLLOW)
  } catch {
    return undefined
  }
  if (fstatSync(fd).isSocket()) return fd
  closeSync(fd)
  return undefined
}
