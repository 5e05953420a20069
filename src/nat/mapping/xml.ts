import { MalformedError } from '../../base/index.ts'

/** An element of a document, with its local name (prefixes are dropped): as much of XML as UPnP devices use. */
export interface Element {
  readonly name: string
  readonly children: readonly Element[]
  /** Its own text, trimmed. */
  readonly text: string
}

const MAX_DEPTH = 32
const MAX_ELEMENTS = 2048

interface Open {
  readonly name: string
  readonly children: Element[]
  text: string
}

/**
 * Reads a document. Comments, CDATA and processing instructions are skipped over as XML says; entities other than XML's own five and numbers stay as
 * they are, and a document type is refused: nothing that a device sends grows.
 * @throws MalformedError
 */
export function parseXml(text: string): Element {
  const stack: Open[] = [{ name: '', children: [], text: '' }]
  let elements = 0
  let at = 0
  const until = (end: string, from: number): number => {
    const found = text.indexOf(end, from)
    if (found < 0) throw malformed('is cut short')
    return found
  }
  while (at < text.length) {
    const tag = text.indexOf('<', at)
    const top = stack.at(-1)!
    if (tag < 0) {
      top.text += decodeEntities(text.slice(at))
      break
    }
    top.text += decodeEntities(text.slice(at, tag))
    if (text.startsWith('<!--', tag)) at = until('-->', tag + 4) + 3
    else if (text.startsWith('<![CDATA[', tag)) {
      const end = until(']]>', tag + 9)
      top.text += text.slice(tag + 9, end)
      at = end + 3
    } else if (text.startsWith('<?', tag)) at = until('?>', tag + 2) + 2
    else if (text.startsWith('<!', tag)) throw malformed('has a document type')
    else {
      const end = until('>', tag + 1)
      const inside = text.slice(tag + 1, end)
      at = end + 1
      if (inside.startsWith('/')) close(stack, localName(inside.slice(1)))
      else {
        if (++elements > MAX_ELEMENTS) throw malformed(`has more than ${MAX_ELEMENTS} elements`)
        if (stack.length > MAX_DEPTH) throw malformed('is nested too deeply')
        stack.push({ name: localName(inside), children: [], text: '' })
        if (inside.endsWith('/')) close(stack, localName(inside))
      }
    }
  }
  const [root] = stack[0]!.children
  if (stack.length !== 1 || root === undefined) throw malformed('is cut short')
  return root
}

/** All elements of that name, at any depth. */
export function elementsNamed(element: Element, name: string): Element[] {
  return [...(element.name === name ? [element] : []), ...element.children.flatMap((child) => elementsNamed(child, name))]
}

/** The text of the first element of that name, or null. */
export function textOf(element: Element, name: string): string | null {
  return elementsNamed(element, name)[0]?.text ?? null
}

/** A text as the content of an element. */
export function escapeXml(text: string): string {
  return text.replace(/[<>&"']/g, (character) => `&#${character.charCodeAt(0)};`)
}

function close(stack: Open[], name: string): void {
  const element = stack.pop()!
  if (stack.length === 0 || element.name !== name) throw malformed('is not closed as it was opened')
  stack.at(-1)!.children.push({ name, children: element.children, text: element.text.trim() })
}

function localName(inside: string): string {
  const name = /^(?:[\w.-]+:)?([\w.-]+)/.exec(inside)?.[1]
  if (name === undefined) throw malformed('has a tag without a name')
  return name
}

function decodeEntities(text: string): string {
  if (!text.includes('&')) return text
  const named: Record<string, string> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }
  return text.replace(/&(?:(lt|gt|amp|quot|apos)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));/g, (whole, name, decimal, hex) => {
    if (name !== undefined) return named[name]!
    const code = decimal !== undefined ? Number(decimal) : Number.parseInt(hex, 16)
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole
  })
}

function malformed(problem: string): MalformedError {
  return new MalformedError('XML', problem)
}
