/** What a runtime left: how it is kept, listed and read back. */
import type { Json } from '../../base/json.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { CollectedOutputs } from '../../runtime/adapter.ts'
import type { Command } from '../../store/commands.ts'
import { listOutputs, putOutputs, type RuntimeRow, readOutput } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import { fail } from './failures.ts'

/** What goes into one answer at most, as UTF-8; the envelope has room for 64 KiB of JSON. */
const INLINE_BYTES = 32 * 1024
const MAX_LISTED = 256
const MAX_LISTED_BYTES = 16 * 1024
const MAX_TEXT_BYTES = 4 * 1024 * 1024

/** @param keepBytes of all runtimes together */
export function keepOutputs(runtimeId: string, outputs: CollectedOutputs | undefined, keepBytes: number): readonly Command<unknown>[] {
  if (outputs === undefined) return []
  const entry = (name: string, text: string) => (text === '' ? [] : [{ name, data: Buffer.from(text) }])
  const files = [
    ...entry('stdout', outputs.stdout),
    ...entry('stderr', outputs.stderr),
    ...entry('log', outputs.log),
    ...entry('events', outputs.events.map((event) => JSON.stringify(event)).join('\n')),
    ...(outputs.status === undefined ? [] : entry('status', JSON.stringify(outputs.status))),
    ...(outputs.result === undefined ? [] : entry('result', JSON.stringify(outputs.result))),
    ...(outputs.problems.length === 0 ? [] : entry('problems', outputs.problems.join('\n'))),
    ...outputs.artifacts.map((artifact) => ({ name: `artifact:${artifact.path}`, data: artifact.data })),
  ]
  return files.length === 0 ? [] : [putOutputs({ runtimeId, outputs: files, keepBytes })]
}

export function resultOf(outputs: CollectedOutputs | undefined): Json | null {
  return outputs?.result === undefined ? null : (JSON.parse(JSON.stringify(outputs.result)) as Json)
}

/** What was collected, or a page of one of it. @throws ControlError operation_failed */
export function collect(store: Store, row: RuntimeRow, command: CommandOf<'collect'>): Json {
  if (command.output === undefined) return { operation: 'collect', outputs: outputList(store, row.id) }
  const page = readOutput(store, { runtimeId: row.id, name: command.output, offset: command.offset, limit: INLINE_BYTES })
  if (page === undefined)
    throw fail('operation_failed', `the runtime left no output ${command.output}`, 'collect without output lists them')
  const next = command.offset + page.data.length
  return {
    operation: 'collect',
    output: command.output,
    offset: command.offset,
    total_bytes: page.totalBytes,
    data_base64: page.data.toString('base64'),
    ...(next < page.totalBytes ? { next_offset: next } : {}),
  }
}

/** As many as fit beside the rest of an answer. */
function outputList(store: Store, runtimeId: string): Json[] {
  const listed: Json[] = []
  let total = 0
  for (const { name, bytes } of listOutputs(store, runtimeId).slice(0, MAX_LISTED)) {
    total += Buffer.byteLength(JSON.stringify({ name, bytes }))
    if (total > MAX_LISTED_BYTES) break
    listed.push({ name, bytes })
  }
  return listed
}

/** The answer to a finished one-shot run: small outputs inside, of larger ones how to collect them. */
export function runAnswer(store: Store, row: RuntimeRow): Json {
  const result = row.result as { exit_code?: number; message?: string; status?: string } | null
  const read = (name: string) => readOutput(store, { runtimeId: row.id, name, offset: 0, limit: INLINE_BYTES + 1 })
  const [stdout, stderr] = [read('stdout'), read('stderr')]
  const outputs = listOutputs(store, row.id)
  const common = {
    operation: 'run',
    exit_code: result?.exit_code ?? null,
    status: result?.status ?? 'failed',
    message: result?.message ?? row.stateReason,
    outputs: outputList(store, row.id),
  }
  const texts = { stdout: stdout?.data.toString('utf8') ?? '', stderr: stderr?.data.toString('utf8') ?? '' }
  const artifacts: Record<string, string> = {}
  let total = Buffer.byteLength(JSON.stringify(texts))
  for (const { name, bytes } of outputs.filter((output) => output.name.startsWith('artifact:'))) {
    total += Math.ceil(bytes / 3) * 4 + name.length + 8
    if (total > INLINE_BYTES) break
    artifacts[name.slice('artifact:'.length)] = read(name)?.data.toString('base64') ?? ''
  }
  if (total <= INLINE_BYTES) return { ...common, ...texts, artifacts_base64: artifacts }
  return {
    ...common,
    outputs: common.outputs.slice(0, 128),
    error: 'output_too_large',
    hint: `the outputs are over ${INLINE_BYTES} bytes: send collect with runtime_id ${row.id} and each output name`,
  }
}

/** A collected output as text, all of it that was kept. */
export function outputText(store: Store, runtimeId: string, name: string): string {
  return readOutput(store, { runtimeId, name, offset: 0, limit: MAX_TEXT_BYTES })?.data.toString('utf8') ?? ''
}
