/** Sections of a Markdown text, each from its `## ` title to the next; pure. */

/** A section with its title, or '' where there is none. */
export function sectionOf(text, title) {
  const at = `\n${text}`.indexOf(`\n${title}\n`)
  if (at < 0) return ''
  const end = text.indexOf('\n## ', at + title.length)
  return `${text.slice(at, end < 0 ? undefined : end).trimEnd()}\n`
}

/** The text with this section in the place of the one with its title, or at the end. */
export function withSection(text, title, section) {
  const before = sectionOf(text, title)
  return before === '' ? `${text.trimEnd()}\n\n${section}` : text.replace(before, () => section)
}
