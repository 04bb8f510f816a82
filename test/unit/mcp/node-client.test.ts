/** Which node is asked: the first that answers, and no other after it. */
import { createServer } from 'node:http'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { nodeRoutes } from '../../../src/control/contract/node.ts'
import { NodeClient } from '../../../src/mcp/node-client.ts'
import { tempDir } from '../../support/temp.ts'

async function nodeAt(socket: string, network: string): Promise<() => Promise<void>> {
  const server = createServer((_request, response) => response.end(JSON.stringify({ network })))
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  const stop = () => new Promise<void>((resolve) => server.close(() => resolve()))
  onTestFinished(() => stop())
  return stop
}

it('keeps to the node that it met, and says how to start it when that is gone', async () => {
  const dir = tempDir()
  const [live, sandbox] = [join(dir, 'live.sock'), join(dir, 'sandbox.sock')]
  const client = new NodeClient([live, sandbox], 'pylon start')
  await expect(client.call(nodeRoutes.ping, {})).rejects.toMatchObject({
    code: 'not_running',
    message: expect.stringContaining('pylon start'),
  })
  const stop = await nodeAt(sandbox, 'sandbox')
  expect((await client.call(nodeRoutes.ping, {})).network).toBe('sandbox')
  await nodeAt(live, 'live')
  expect((await client.call(nodeRoutes.ping, {})).network).toBe('sandbox')
  await stop()
  await expect(client.call(nodeRoutes.ping, {})).rejects.toMatchObject({ code: 'not_running' })
})
