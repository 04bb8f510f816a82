/** Lengths of time as people write them: `45m`, `12h`, `30d`. */
const UNITS = { m: 60_000, h: 3_600_000, d: 86_400_000 } as const

export const LENGTH = /^([1-9]\d{0,3})([mhd])$/

/** In milliseconds; undefined where the text is none. */
export function lengthMs(text: string): number | undefined {
  const [, count, unit] = LENGTH.exec(text) ?? []
  return count === undefined ? undefined : Number(count) * UNITS[unit as keyof typeof UNITS]
}
