/** The readable text of an HTML page, simply and in linear time: hostile pages cost no more than their length. */

/** Elements whose content is no text. */
const DROPPED = ['script', 'style', 'noscript', 'template', 'svg', 'head']
const BLOCKS =
  /^\/?(?:address|article|aside|blockquote|br|dd|div|dl|dt|footer|form|h[1-6]|header|hr|li|main|nav|ol|p|pre|section|table|td|th|tr|ul)\b/
const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: ' ' }

/** A paragraph for each block, with an empty line between. */
export function htmlToText(html: string): string {
  const lower = html.toLowerCase()
  const parts: string[] = []
  let at = 0
  while (at < html.length) {
    const open = html.indexOf('<', at)
    if (open === -1) {
      parts.push(textIn(html.slice(at)))
      break
    }
    parts.push(textIn(html.slice(at, open)))
    const next = afterTag(lower, open)
    if (BLOCKS.test(lower.slice(open + 1, open + 12))) parts.push('\n')
    at = next
  }
  return decodeEntities(parts.join(''))
    .split('\n')
    .map((line) => line.replace(/\s+/g, ' ').trim())
    .filter((line) => line !== '')
    .join('\n\n')
}

/** In HTML a line break is a space: only elements part paragraphs. */
const textIn = (raw: string): string => raw.replaceAll('\n', ' ')

/** Where the text goes on after the tag, comment or dropped element that begins at `open`. */
function afterTag(lower: string, open: number): number {
  if (lower.startsWith('<!--', open)) return endOf(lower, '-->', open + 4)
  const name = /^[a-z][a-z0-9]*/.exec(lower.slice(open + 1, open + 12))?.[0]
  if (name !== undefined && DROPPED.includes(name)) return endOf(lower, '>', endOf(lower, `</${name}`, open))
  return endOf(lower, '>', open)
}

/** What is never closed runs to the end, so nothing is searched twice. */
function endOf(text: string, mark: string, from: number): number {
  const found = text.indexOf(mark, from)
  return found === -1 ? text.length : found + mark.length
}

function decodeEntities(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]{2,6}));/gi, (whole, decimal?: string, hex?: string, name?: string) => {
    if (name !== undefined) return ENTITIES[name.toLowerCase()] ?? whole
    const code = decimal === undefined ? Number.parseInt(hex ?? '', 16) : Number(decimal)
    return code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : whole
  })
}
