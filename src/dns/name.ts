import { MalformedError, utf8Bytes } from '../base/index.ts'
import { DNS_HEADER_BYTES, DNS_NAME_BYTES } from './numbers.ts'

/** Pointers in one name: as many as it can have labels. Each leads further back as well, so a name always ends. */
const MAX_POINTERS = 127
const LABEL_BYTES = 63

/** Labels of a name, without the root's. Views of the message. */
type Labels = readonly Uint8Array[]

/**
 * Reads a name (RFC 1035 §4.1.4): labels, then the root or a pointer to an earlier place. Only the two kinds of labels of RFC 1035 are taken.
 * @returns its labels (borrowed), and where the bytes behind it begin. @throws MalformedError
 */
export function readLabels(message: Uint8Array, at: number, most = message.length): { readonly labels: Labels; readonly end: number } {
  const labels: Uint8Array[] = []
  const end = walkName(message, at, most, (from, to) => labels.push(message.subarray(from, to)))
  return { labels, end }
}

/** Where the bytes behind a name begin; the whole name is checked. @throws MalformedError */
export function skipName(message: Uint8Array, at: number, most = message.length): number {
  return walkName(message, at, most, () => {})
}

/** A name as text: labels with dots between, without a last dot, capitals as they were; '.' is the root. Other bytes as RFC 1035 §5.1 escapes them. */
export function nameText(labels: Labels): string {
  return labels.length === 0 ? '.' : labels.map(labelText).join('.')
}

/** A name of text as bytes, uncompressed: the reverse of `nameText`. @throws MalformedError */
export function encodeName(text: string): Uint8Array {
  const bytes: number[] = []
  if (text !== '.' && text !== '') {
    for (const label of splitLabels(text)) {
      if (label.length === 0) throw malformed('has an empty label')
      if (label.length > LABEL_BYTES) throw malformed(`has a label of more than ${LABEL_BYTES} bytes`)
      bytes.push(label.length, ...label)
    }
  }
  bytes.push(0)
  if (bytes.length > DNS_NAME_BYTES) throw malformed(`is longer than ${DNS_NAME_BYTES} bytes`)
  return Uint8Array.from(bytes)
}

/** The bytes of a name, uncompressed. */
export function encodeLabels(labels: Labels): Uint8Array {
  const bytes = new Uint8Array(labels.reduce((sum, label) => sum + 1 + label.length, 1))
  let at = 0
  for (const label of labels) {
    bytes[at] = label.length
    bytes.set(label, at + 1)
    at += 1 + label.length
  }
  return bytes
}

/** Lower case by ASCII only, which is how names are compared. RFC 4343 */
export function lowerName(text: string): string {
  return text.replace(/[A-Z]+/g, (capitals) => capitals.toLowerCase())
}

/** Whether a lower-case name is the domain or lies below it. */
export function isUnder(name: string, domain: string): boolean {
  return name === domain || name.endsWith(`.${domain}`)
}

function walkName(message: Uint8Array, start: number, most: number, label: (from: number, to: number) => void): number {
  let at = start
  /** Where the labels that are being read begin: a pointer has to lead before it. */
  let segment = start
  let end = -1
  let pointers = 0
  let length = 1
  for (;;) {
    const limit = end < 0 ? most : message.length
    if (at >= limit) throw malformed('goes beyond its place')
    const first = message[at]!
    if (first === 0) return end < 0 ? at + 1 : end
    if (first <= LABEL_BYTES) {
      length += 1 + first
      if (length > DNS_NAME_BYTES) throw malformed(`is longer than ${DNS_NAME_BYTES} bytes`)
      if (at + 1 + first > limit) throw malformed('goes beyond its place')
      label(at + 1, at + 1 + first)
      at += 1 + first
      continue
    }
    if (first < 0xc0) throw malformed('has a label of an unknown kind')
    if (at + 2 > limit) throw malformed('goes beyond its place')
    const to = ((first & 0x3f) << 8) | message[at + 1]!
    if (to >= segment || to < DNS_HEADER_BYTES) throw malformed('has a pointer that does not lead back')
    if (++pointers > MAX_POINTERS) throw malformed('has too many pointers')
    if (end < 0) end = at + 2
    segment = to
    at = to
  }
}

function labelText(label: Uint8Array): string {
  let text = ''
  for (const byte of label) {
    if (byte === 0x2e || byte === 0x5c) text += `\\${String.fromCharCode(byte)}`
    else if (byte > 0x20 && byte < 0x7f) text += String.fromCharCode(byte)
    else text += `\\${String(byte).padStart(3, '0')}`
  }
  return text
}

function splitLabels(text: string): number[][] {
  const labels: number[][] = [[]]
  const bytes = utf8Bytes(text.endsWith('.') && !text.endsWith('\\.') ? text.slice(0, -1) : text)
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!
    if (byte === 0x2e) {
      labels.push([])
      continue
    }
    if (byte !== 0x5c) {
      labels.at(-1)!.push(byte)
      continue
    }
    const digits = /^\d{3}/.exec(String.fromCharCode(...bytes.subarray(i + 1, i + 4)))?.[0]
    const escaped = digits === undefined ? bytes[i + 1] : Number(digits)
    if (escaped === undefined || escaped > 255) throw malformed('has an escape that means nothing')
    labels.at(-1)!.push(escaped)
    i += digits === undefined ? 1 : 3
  }
  return labels
}

function malformed(problem: string): MalformedError {
  return new MalformedError('DNS name', problem)
}
