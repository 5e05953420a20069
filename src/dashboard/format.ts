/** Numbers and times for people: three figures at most, units that stay together with them. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** 1536 is "1.5 KiB". */
export function bytes(value: number): string {
  let [n, unit] = [value, 0]
  while (n >= 1000 && unit < UNITS.length - 1) {
    n /= 1024
    unit += 1
  }
  return `${unit === 0 ? String(Math.round(n)) : n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2)} ${UNITS[unit]}`
}

/** Bytes a second. */
export function rate(value: number): string {
  return `${bytes(value)}/s`
}

const whole = new Intl.NumberFormat('en')
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

/** 12345 is "12,345". */
export function number(value: number): string {
  return whole.format(value)
}

/** 12345 is "12.3K". */
export function brief(value: number): string {
  return short.format(value)
}

/** "340 ms", "1.2 s"; "–" for what was not measured. */
export function latency(ms: number | null): string {
  if (ms === null) return '–'
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}

/** "3 s", "5 min", "2 h 10 min", "4 days". */
export function duration(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000))
  if (s < 60) return `${s} s`
  const min = Math.floor(s / 60)
  if (min < 60) return s % 60 === 0 || min >= 10 ? `${min} min` : `${min} min ${s % 60} s`
  const h = Math.floor(min / 60)
  if (h < 48) return min % 60 === 0 ? `${h} h` : `${h} h ${min % 60} min`
  return `${Math.floor(h / 24)} days`
}

/** 14:05:09, in the time of this machine. */
export function clock(at: number): string {
  return new Date(at).toLocaleTimeString('en-GB')
}

/** 21 Nov, 14:05. */
export function moment(at: number): string {
  return new Date(at).toLocaleString('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })
}

const regions = new Intl.DisplayNames('en', { type: 'region', fallback: 'none' })

/** "NL" is "Netherlands"; null, and "??", where it is not known. */
export function countryName(code: string | null): string {
  if (code === null || !/^[A-Z]{2}$/.test(code)) return 'Country unknown'
  return regions.of(code) ?? code
}

/** The last characters of a node id: the first are the same for every node. */
export function shortId(id: string): string {
  return id.length > 12 ? `…${id.slice(-8)}` : id
}

/** "resource-limit" is "resource limit". */
export function words(code: string): string {
  return code.replaceAll('-', ' ').replaceAll('_', ' ')
}

/** "1 stream", "2 streams". */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${number(count)} ${count === 1 ? one : many}`
}

/** "a, b and c". */
export function list(items: readonly string[]): string {
  return new Intl.ListFormat('en-GB', { type: 'conjunction' }).format(items)
}
