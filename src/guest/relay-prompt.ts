/** Posts a prompt from stdin to the endpoint of the same runtime: for a host that reaches in by exec and not by network. */
import { request } from 'node:http'
import { MAX_ANSWER_BYTES, PROMPT_PATH } from '../runtime/contract/prompt.ts'

/** @param socketPath the endpoint's Unix socket @returns 0 when the endpoint answered, with whatever status: stdout holds its body */
export async function relayPrompt(socketPath: string): Promise<number> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk)
  try {
    process.stdout.write(await post(socketPath, Buffer.concat(chunks)))
    return 0
  } catch (error) {
    process.stderr.write(`pylon guest: ${error instanceof Error ? error.message : String(error)}\n`)
    return 1
  }
}

function post(socketPath: string, body: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: `Bearer ${process.env['PYLON_TICKET'] ?? ''}`,
      'content-type': 'application/json',
      'content-length': body.length,
    }
    const outgoing = request({ socketPath, path: PROMPT_PATH, method: 'POST', headers }, (response) => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > MAX_ANSWER_BYTES) outgoing.destroy(new Error('the answer is too long'))
        else chunks.push(chunk)
      })
      response.on('end', () => resolve(Buffer.concat(chunks)))
      response.on('error', reject)
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
