/** Options and arguments as yargs takes them: nearly all are one text, which the command reads. */
import { given } from '../base/given.ts'
import { wholeNumberIf } from './terminal/values.ts'

/** A text that is given once; `many` reads one that may be repeated. */
export const textOption = (describe: string) => ({ type: 'string', nargs: 1, describe }) as const

export const flagOption = (describe: string) => ({ type: 'boolean', default: false, describe }) as const

export const limitOption = (describe: string) => ({ ...textOption(describe), alias: 'n' }) as const

/** How many were asked for. @throws usage */
export function limitOf(args: { readonly limit: string | undefined }): { limit?: number } {
  return given({ limit: wholeNumberIf(args.limit, '--limit') })
}

/** An argument that must be there. */
export const argument = (describe?: string) => ({ type: 'string', demandOption: true, describe }) as const
