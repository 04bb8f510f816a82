/** What was probably meant: the word nearest to one that was typed. */

/** The nearest of the words, by edits of single characters; undefined where none is near. */
export function nearest(typed: string, words: readonly string[]): string | undefined {
  const most = Math.max(1, Math.floor(typed.length / 3))
  let found: string | undefined
  let least = most + 1
  for (const word of words) {
    // A beginning is what people leave off most.
    const edits = typed.length >= 3 && word.startsWith(typed) ? 1 : distance(typed.toLowerCase(), word.toLowerCase())
    if (edits < least) [found, least] = [word, edits]
  }
  return found
}

/** Characters to be put in, left out, changed or swapped with the next. */
function distance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 20) return Number.POSITIVE_INFINITY
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  const at = (i: number, j: number) => rows[i]?.[j] ?? 0
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    rows.push(row)
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      row[j] = Math.min(at(i - 1, j) + 1, (row[j - 1] ?? 0) + 1, at(i - 1, j - 1) + (same ? 0 : 1), swapped ? at(i - 2, j - 2) + 1 : 99)
    }
  }
  return at(a.length, b.length)
}
