/** Structured logs: one JSON line each to one file descriptor that can be reopened, secrets redacted by field name. */
import { type DestinationStream, destination, type Logger, pino } from 'pino'

export type { Logger } from 'pino'

const SECRET_FIELDS = [
  'nsec',
  'mnemonic',
  'passphrase',
  'secret',
  'privkey',
  'private_key',
  'token',
  'proofs',
  'preimage',
  'quote_id',
  'authorization',
  'seed',
  'api_key',
]

export function createLogger(options: { level?: string; path?: string; stream?: DestinationStream } = {}): {
  logger: Logger
  reopen(): void
} {
  const stream =
    options.stream ??
    destination({ ...(options.path === undefined ? { dest: 1 } : { dest: options.path, mkdir: true, mode: 0o600 }), sync: true })
  const logger = pino(
    {
      level: options.level ?? 'info',
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRET_FIELDS.flatMap((field) => [field, `*.${field}`, `*.*.${field}`]), censor: '[redacted]' },
    },
    stream,
  )
  return { logger, reopen: () => (stream as { reopen?: () => void }).reopen?.() }
}

export const silentLogger: Logger = pino({ level: 'silent' })
