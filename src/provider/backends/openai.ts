/** The backend of kind 5050: text generation by the first OpenAI-compatible server that answers. */
import type { Config } from '../../base/config.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import {
  type ChatNumber,
  type ChatRequest,
  chat,
  LOCAL_SERVERS,
  type OpenAiServer,
  probeServers,
  readApiKey,
} from '../../inference/openai.ts'
import { DEFAULT_MAX_TOKENS } from '../pricing.ts'
import type { Backend, BackendHealth, JobParams } from './backend.ts'

/** The most that a customer may ask for. */
const MAX_TOKENS = 32_768

const NUMBERS: readonly { readonly name: ChatNumber; readonly min: number; readonly max: number; readonly whole: boolean }[] = [
  { name: 'max_tokens', min: 1, max: MAX_TOKENS, whole: true },
  { name: 'temperature', min: 0, max: 2, whole: false },
  { name: 'top_p', min: 0, max: 1, whole: false },
  { name: 'frequency_penalty', min: -2, max: 2, whole: false },
  { name: 'presence_penalty', min: -2, max: 2, whole: false },
  { name: 'seed', min: 0, max: 2 ** 31 - 1, whole: true },
]

/** The numbers a request sets. @throws param_invalid naming the first wrong one. */
function parseNumbers(params: JobParams): Partial<Record<ChatNumber, number>> {
  const numbers: Partial<Record<ChatNumber, number>> = {}
  for (const { name, min, max, whole } of NUMBERS) {
    // Some clients write it with a dash.
    const raw = (params[name] ?? (name === 'top_p' ? params['top-p'] : undefined))?.[0]
    if (raw === undefined) continue
    const value = raw.trim() === '' ? Number.NaN : Number(raw)
    if (!(value >= min && value <= max) || (whole && !Number.isInteger(value))) {
      throw new PylonError('param_invalid', `The param ${name} must be ${whole ? 'a whole number' : 'a number'} from ${min} to ${max}.`)
    }
    numbers[name] = value
  }
  return numbers
}

export function maxTokensOf(params: JobParams): number {
  return parseNumbers(params).max_tokens ?? DEFAULT_MAX_TOKENS
}

export function createOpenAiBackend(config: Config['provider'], servers: readonly OpenAiServer[] = serversOf(config)): Backend {
  let found: { server: OpenAiServer; models: string[] } | undefined
  let health: BackendHealth = { state: 'degraded', models: [], reason: 'Not asked yet.' }

  function modelFor(params: JobParams): string {
    const asked = params['model']?.[0]?.trim()
    const models = found?.models ?? []
    if (asked !== undefined && asked !== '' && asked !== 'default') {
      if (found !== undefined && !models.includes(asked)) {
        throw new PylonError('param_invalid', `There is no model ${asked.slice(0, 100)} here; the announcement lists the models.`)
      }
      return asked
    }
    return config.openai_model === '' ? (models[0] ?? '') : config.openai_model
  }

  async function probe(): Promise<void> {
    const key = apiKey(config)
    if ('reason' in key) {
      health = { state: 'degraded', models: [], reason: key.reason }
      found = undefined
      return
    }
    const asked = await probeServers(servers.map((server) => (key.value === undefined ? server : { ...server, apiKey: key.value })))
    const first = asked.find((entry) => entry.reason === undefined && hasModel(entry.models, config.openai_model))
    found = first
    health = first === undefined ? { state: 'degraded', models: [], reason: whyNone(config, asked) } : { state: 'ok', models: first.models }
  }

  return {
    name: 'openai',
    inline: false,
    kinds: () => [5050],
    check(work) {
      parseNumbers(work.params)
      modelFor(work.params)
      if (work.input?.trim() === '') throw new PylonError('input_invalid', 'There is no prompt: send an input of type text.')
    },
    async run(work, signal) {
      if (found === undefined) await probe()
      if (found === undefined) throw new PylonError('backend_unavailable', health.reason ?? 'No model server answers.')
      // The text of a stranger is the user's turn and nothing else: no tools, no system words.
      const request: ChatRequest = {
        model: modelFor(work.params),
        messages: [{ role: 'user', content: work.input }],
        max_tokens: DEFAULT_MAX_TOKENS,
        ...parseNumbers(work.params),
      }
      const answer = await chat(found.server, request, signal)
      // Where the text is cut is what max_tokens says; anything else that is not whole is no result.
      if (answer.lack !== undefined && (answer.lack.kind !== 'cut' || answer.content === '')) {
        throw new PylonError('backend_failed', `The model gave no result: ${answer.lack.words}.`)
      }
      if (answer.content === '') {
        throw new PylonError('backend_failed', `The model answered with nothing${answer.reasoning === '' ? '' : ' but its reasoning'}.`)
      }
      return answer.content
    },
    health: () => health,
    probe,
  }
}

function hasModel(models: readonly string[], wanted: string): boolean {
  return wanted === '' || models.includes(wanted)
}

function serversOf(config: Config['provider']): readonly OpenAiServer[] {
  if (config.openai_base_url !== '') return [{ name: 'openai', baseUrl: config.openai_base_url }]
  return config.probe ? LOCAL_SERVERS : []
}

function apiKey(config: Config['provider']): { value: string | undefined } | { reason: string } {
  try {
    // A key belongs to the server that the owner named; servers found by probing get none.
    return { value: config.openai_base_url === '' ? undefined : readApiKey(config.openai_api_key_file) }
  } catch (error) {
    return { reason: messageOf(error) }
  }
}

function whyNone(config: Config['provider'], asked: readonly { server: OpenAiServer; models: string[]; reason?: string }[]): string {
  if (asked.length === 0) return 'No model server is configured: set provider.openai_base_url, or provider.probe to true.'
  const lacking = asked.find((entry) => entry.reason === undefined)
  if (lacking !== undefined) return `${lacking.server.name} has no model ${config.openai_model}: pull it, or change provider.openai_model.`
  if (config.openai_base_url !== '') return asked[0]?.reason ?? `${config.openai_base_url} does not answer.`
  return 'No model server answers on the usual local ports: start ollama, llama.cpp, vLLM or LM Studio, or set provider.openai_base_url.'
}
