/** What does the work of a kind: one interface for built-ins, commands and models. */

/** Parameters by name; a name may come more than once and a value may have several parts, all in order. */
export type JobParams = Readonly<Record<string, readonly string[]>>

export interface Work {
  readonly kind: number
  /** The inputs as text, joined by blank lines. */
  readonly input: string
  readonly inputType: 'text' | 'url' | 'event' | 'job' | 'mixed'
  readonly params: JobParams
  /** The MIME type that the customer asked for. */
  readonly output: string | undefined
}

/** What is known before a price is named; `input` is undefined while it is still to be fetched. */
export interface Checkable extends Pick<Work, 'kind' | 'params' | 'output'> {
  readonly input: string | undefined
}

export interface BackendHealth {
  readonly state: 'ok' | 'degraded'
  readonly models: readonly string[]
  /** Why it is not ok, and what to do. */
  readonly reason?: string
}

export interface Backend {
  readonly name: string
  /** Done in a few milliseconds on the main loop: takes no slot of the queue. */
  readonly inline: boolean
  /** What it would serve; while `health` is not ok these are refused as backend_unavailable. */
  kinds(): readonly number[]
  /** Checks what can be checked before a price is named. @throws param_invalid, input_invalid */
  check(work: Checkable): void
  /** The result. @throws input_invalid, backend_unavailable, backend_failed, output_too_large, the signal's reason */
  run(work: Work, signal: AbortSignal): Promise<string>
  health(): BackendHealth
  /** Looks again whether it can serve. Never rejects. */
  probe(): Promise<void>
}
