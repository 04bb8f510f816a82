/** A language model thinks: any OpenAI-compatible server, the line grammar as the way to act. */

import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Lack } from '../../inference/completion.ts'
import { chat, listModels, type OpenAiServer, probeServers, readApiKey } from '../../inference/openai.ts'
import { joinThoughts, readAnswer } from './answer.ts'
import type { Brain, BrainDeps, BrainSettings } from './brain.ts'
import { notTold, promptOf } from './prompt.ts'

type Settings = Extract<BrainSettings, { type: 'openai' }>

export function createOpenAiBrain(settings: Settings, deps: BrainDeps): Brain {
  return {
    async think(observation, signal) {
      const { server, model } = await findServer(settings, deps, signal)
      const answer = await chat(server, { model, messages: promptOf(observation), max_tokens: settings.max_tokens }, signal)
      if (answer.lack !== undefined)
        throw new PylonError('brain_failed', `Nothing was done: ${answer.lack.words}${remedy(answer.lack.kind)}.`)
      const thought = readAnswer(answer.content, false)
      return { ...thought, text: joinThoughts(answer.reasoning, thought.text), left: notTold(observation) }
    },
  }
}

const remedy = (kind: Lack): string => (kind === 'cut' ? '; a higher --max-tokens gives it room' : '')

async function findServer(settings: Settings, deps: BrainDeps, signal: AbortSignal): Promise<{ server: OpenAiServer; model: string }> {
  const { openai_base_url, openai_api_key_file, openai_model } = deps.config().provider
  const baseUrl = settings.base_url || openai_base_url
  if (baseUrl !== '') {
    // The provider's key goes only to the provider's server.
    const keyFile = settings.api_key_file || (settings.base_url === '' ? openai_api_key_file : '')
    const apiKey = readApiKey(keyFile)
    const server = { name: 'the model server', baseUrl, ...given({ apiKey }) }
    const model = settings.model || (settings.base_url === '' ? openai_model : '') || (await listModels(server, signal))[0]
    if (model === undefined) throw new PylonError('brain_failed', `The server at ${baseUrl} has no model; name one with --model.`)
    return { server, model }
  }
  const found = (await probeServers()).find(({ models }) => models.length > 0 && (settings.model === '' || models.includes(settings.model)))
  const model = settings.model || found?.models[0]
  if (found === undefined || model === undefined) {
    throw new PylonError(
      'brain_failed',
      'No local model server has the model; start one (ollama, llama.cpp, vLLM, LM Studio) or set --base-url.',
    )
  }
  return { server: found.server, model }
}
