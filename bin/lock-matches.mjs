// Ends with 0 when node_modules holds exactly the packages that package-lock.json names; with --omit=dev those that a package needs. Runs on any
// Node: it is asked before there is a new one.
import { existsSync, readFileSync } from 'node:fs'

const locked = Object.entries(JSON.parse(readFileSync('package-lock.json', 'utf8')).packages)
const wanted = Object.fromEntries(process.argv.includes('--omit=dev') ? locked.filter(([, entry]) => entry.dev !== true) : locked)
const present = JSON.parse(readFileSync('node_modules/.package-lock.json', 'utf8')).packages
const libc = process.platform === 'linux' ? (process.report?.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl') : undefined

/** Whether a list of a package's manifest, such as `["linux"]` or `["!win32"]`, takes a value. */
const takes = (list, value) => {
  const names = list === undefined ? [] : [list].flat()
  if (names.includes(`!${value}`)) return false
  const positive = names.filter((name) => !name.startsWith('!'))
  return positive.length === 0 || value === undefined || positive.includes(value)
}

/** A binary for this machine: optional for npm, which leaves it out where the Node that npm runs on is too old for it. */
const isBinaryForHere = (entry) =>
  entry.os !== undefined && takes(entry.os, process.platform) && takes(entry.cpu, process.arch) && takes(entry.libc, libc)

const matches = Object.entries(wanted).every(([path, entry]) => {
  if (path === '') return true
  const found = present[path]
  if (found === undefined) return (entry.optional === true || entry.devOptional === true) && !isBinaryForHere(entry)
  return found.version === entry.version && found.integrity === entry.integrity && existsSync(path)
})
const nothingElse = Object.keys(present).every((path) => wanted[path] !== undefined)
process.exit(matches && nothingElse ? 0 : 1)
