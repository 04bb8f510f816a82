/** Whether a node still answers while a call waits for it: a process that is stopped or hung takes connections and says nothing. */
import { type ClientRequest, request as httpRequest } from 'node:http'

/** Together under five seconds, after which every command says so. */
const LOOK_EVERY_MS = 800
const PATIENCE_MS = 2700

/** Asks beside a call, until that has ended, whether the node answers at all; `onSilent` is called once when it does not. */
export function watchLiveness(socket: string, call: ClientRequest, onSilent: () => void): void {
  let timer: NodeJS.Timeout
  const look = () => {
    timer = setTimeout(() => {
      void answers(socket, call).then((isAlive) => {
        if (call.destroyed) return
        if (isAlive) look()
        else onSilent()
      })
    }, LOOK_EVERY_MS)
    timer.unref()
  }
  look()
  call.once('close', () => clearTimeout(timer))
}

/** Only silence counts: a connection that is refused ends the call by itself. */
function answers(socket: string, call: ClientRequest): Promise<boolean> {
  return new Promise((resolve) => {
    const ping = httpRequest({ socketPath: socket, method: 'GET', path: '/v1/ping', headers: { Host: 'pylon' }, agent: false })
    const settle = (isAlive: boolean) => {
      clearTimeout(timer)
      call.off('close', giveUp)
      ping.destroy()
      resolve(isAlive)
    }
    const giveUp = () => settle(true)
    // What has arrived meanwhile is read first: this process may be the slow one.
    const timer = setTimeout(() => setImmediate(() => settle(false)), PATIENCE_MS)
    ping.on('response', () => settle(true))
    ping.on('error', () => settle(true))
    call.once('close', giveUp)
    ping.end()
  })
}
