/** Matches artifact paths against patterns in time that no pattern can blow up. Pure. */

/** `*` and `?` within one name, `**` across names. @param path relative, forward slashes */
export function matchesGlob(path: string, glob: string): boolean {
  return matchParts(
    path.split('/'),
    glob.split('/').filter((part, i, all) => part !== '**' || all[i - 1] !== '**'),
  )
}

/** Two pointers and one way back, for names as for letters: linear in practice, quadratic at worst. */
function matchParts(parts: readonly string[], globs: readonly string[]): boolean {
  return matchSequence(
    parts.length,
    globs.length,
    (g) => globs[g] === '**',
    (p, g) => matchName(parts[p] ?? '', globs[g] ?? ''),
  )
}

function matchName(name: string, glob: string): boolean {
  return matchSequence(
    name.length,
    glob.length,
    (g) => glob[g] === '*',
    (p, g) => glob[g] === '?' || glob[g] === name[p],
  )
}

function matchSequence(
  length: number,
  globLength: number,
  isStar: (g: number) => boolean,
  same: (p: number, g: number) => boolean,
): boolean {
  let p = 0
  let g = 0
  let starAt = -1
  let resumeAt = 0
  while (p < length) {
    if (g < globLength && isStar(g)) {
      starAt = g++
      resumeAt = p
    } else if (g < globLength && same(p, g)) {
      p++
      g++
    } else if (starAt >= 0) {
      g = starAt + 1
      p = ++resumeAt
    } else return false
  }
  while (g < globLength && isStar(g)) g++
  return g === globLength
}
