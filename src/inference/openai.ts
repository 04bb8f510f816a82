/** Talks to OpenAI-compatible servers (ollama, llama.cpp, vLLM, LM Studio): finds them, lists models, completes chats. */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { messageOf, PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'
import { type ChatAnswer, DeltaReader, errorWords, readCompletion } from './completion.ts'

/** Where the common local servers listen: name and base URL, in the order they are asked. */
export const LOCAL_SERVERS: readonly { readonly name: string; readonly baseUrl: string }[] = [
  { name: 'ollama', baseUrl: 'http://127.0.0.1:11434/v1' },
  { name: 'llama.cpp', baseUrl: 'http://127.0.0.1:8080/v1' },
  { name: 'vllm', baseUrl: 'http://127.0.0.1:8000/v1' },
  { name: 'lm-studio', baseUrl: 'http://127.0.0.1:1234/v1' },
]

export interface OpenAiServer {
  readonly name: string
  /** With or without a trailing `/v1`; addresses here are the owner's choice and may be local. */
  readonly baseUrl: string
  readonly apiKey?: string
}

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

export type ChatNumber = 'max_tokens' | 'temperature' | 'top_p' | 'frequency_penalty' | 'presence_penalty' | 'seed'

/** The body of a request, as the wire has it. */
export interface ChatRequest extends Readonly<Partial<Record<ChatNumber, number>>> {
  readonly model: string
  readonly messages: readonly ChatMessage[]
}

const MAX_ANSWER_BYTES = 8_000_000
const PROBE_TIMEOUT_MS = 1500

const modelList = z.object({ data: z.array(z.unknown()) })
const modelEntry = z.object({ id: z.string().min(1).max(300) })
const MAX_MODELS = 10_000

/** The key in a file, one line. @throws config_invalid when the file cannot be read or is empty. */
export function readApiKey(path: string): string | undefined {
  if (path === '') return undefined
  let key: string
  try {
    key = readFileSync(path, 'utf8').trim()
  } catch (error) {
    throw new PylonError('config_invalid', `The API key file ${path} cannot be read: ${messageOf(error)}.`)
  }
  if (key === '' || /\s/.test(key)) throw new PylonError('config_invalid', `The API key file ${path} must hold one key on one line.`)
  return key
}

/** Ids of the models that the server has now. @throws backend_unavailable */
export async function listModels(server: OpenAiServer, signal?: AbortSignal): Promise<string[]> {
  const deadline = AbortSignal.timeout(PROBE_TIMEOUT_MS)
  const answer = await call(server, 'models', undefined, signal === undefined ? deadline : AbortSignal.any([signal, deadline]))
  const parsed = modelList.safeParse(parseJson(answer))
  if (!parsed.success)
    throw new PylonError('backend_unavailable', `${server.baseUrl} does not list models as an OpenAI-compatible server does.`)
  return parsed.data.data.slice(0, MAX_MODELS).flatMap((entry) => modelEntry.safeParse(entry).data?.id ?? [])
}

/** The servers of the list that answer with at least one model, in its order. */
export async function probeServers(
  servers: readonly OpenAiServer[] = LOCAL_SERVERS,
): Promise<{ server: OpenAiServer; models: string[]; reason?: string }[]> {
  return Promise.all(
    servers.map(async (server) => {
      try {
        const models = await listModels(server)
        return models.length > 0 ? { server, models } : { server, models, reason: `${server.name} at ${server.baseUrl} has no model.` }
      } catch (error) {
        return { server, models: [], reason: messageOf(error) }
      }
    }),
  )
}

/**
 * One completion, told piece by piece as it comes; pieces may hold reasoning that the answer then leaves out.
 * @throws as chat does
 */
export async function chatStreamed(
  server: OpenAiServer,
  request: ChatRequest,
  signal: AbortSignal,
  onDelta: (text: string) => void,
): Promise<ChatAnswer> {
  const reader = new DeltaReader(onDelta)
  const answer = await call(server, 'chat/completions', { ...request, stream: true }, signal, (text) => reader.add(text))
  return readCompletion(answer, request.max_tokens)
}

/** One completion, not streamed. @throws backend_unavailable (no connection, 5xx, 429), backend_failed (refused or malformed), the signal's reason. */
export async function chat(server: OpenAiServer, request: ChatRequest, signal: AbortSignal): Promise<ChatAnswer> {
  return readCompletion(await call(server, 'chat/completions', { ...request, stream: false }, signal), request.max_tokens)
}

function endpoint(baseUrl: string, path: string): string {
  const root = baseUrl.replace(/\/+$/, '')
  return `${/\/v\d+$/.test(root) ? root : `${root}/v1`}/${path}`
}

async function call(
  server: OpenAiServer,
  path: string,
  body: unknown,
  signal: AbortSignal,
  onText: (text: string) => void = () => {},
): Promise<string> {
  const url = endpoint(server.baseUrl, path)
  let response: Response
  let text: string
  try {
    response = await fetch(url, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(server.apiKey === undefined ? {} : { authorization: `Bearer ${server.apiKey}` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      redirect: 'error',
      signal,
    })
    text = await readCapped(response, response.ok ? onText : () => {})
  } catch (error) {
    if (error instanceof PylonError) throw error
    if (signal.aborted && !(signal.reason instanceof DOMException)) throw signal.reason
    throw new PylonError('backend_unavailable', `${server.name} at ${server.baseUrl} does not answer: ${causeOf(error)}.`, { cause: error })
  }
  if (!response.ok) throw httpError(server, response.status, text)
  return text
}

async function readCapped(response: Response, onText: (text: string) => void): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > MAX_ANSWER_BYTES) throw new PylonError('output_too_large', `The answer is over ${MAX_ANSWER_BYTES} bytes.`)
    const more = decoder.decode(chunk, { stream: true })
    text += more
    onText(more)
  }
  return text + decoder.decode()
}

function httpError(server: OpenAiServer, status: number, text: string): PylonError {
  const plain = /^\s*</.test(text) ? '' : text.trim().slice(0, 300)
  const words = errorWords(parseJson(text)) ?? plain
  const code = status >= 500 || status === 429 || status === 401 || status === 403 ? 'backend_unavailable' : 'backend_failed'
  return new PylonError(code, `${server.name} answered ${status}${words === '' ? '.' : `: ${words}`}`, { details: { status } })
}

function causeOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined
  return cause instanceof Error && cause.message !== '' ? cause.message : messageOf(error)
}
