// Ends with 0 when node_modules holds exactly the packages that package-lock.json names. Runs on any Node: it is asked before there is a new one.
import { existsSync, readFileSync } from 'node:fs'

const wanted = JSON.parse(readFileSync('package-lock.json', 'utf8')).packages
const present = JSON.parse(readFileSync('node_modules/.package-lock.json', 'utf8')).packages

const matches = Object.entries(wanted).every(([path, entry]) => {
  if (path === '') return true
  const found = present[path]
  if (found === undefined) return entry.optional === true || entry.devOptional === true
  return found.version === entry.version && found.integrity === entry.integrity && existsSync(path)
})
const nothingElse = Object.keys(present).every((path) => wanted[path] !== undefined)
process.exit(matches && nothingElse ? 0 : 1)
