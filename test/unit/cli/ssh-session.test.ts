import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { isCutOff, sshPeer } from '../../../src/cli/ssh-session.ts'
import { temporaryFolder } from '../../support/processes.ts'

/** A /proc of processes, each with the one before it as its parent; the first one's is 1. */
function proc(...environs: readonly string[]): { path: string; last: number; remove(): void } {
  const folder = temporaryFolder('proc')
  environs.forEach((environ, i) => {
    const dir = join(folder.path, String(100 + i))
    mkdirSync(dir)
    writeFileSync(join(dir, 'stat'), `${100 + i} (a) b (c)) S ${i === 0 ? 1 : 99 + i} 1 1 0`)
    writeFileSync(join(dir, 'environ'), environ)
  })
  return { path: folder.path, last: 99 + environs.length, remove: folder.remove }
}

test('who types is known by the variable of sshd, or by that of an ancestor where sudo has taken it away', () => {
  expect(sshPeer({ SSH_CONNECTION: '192.0.2.1 5000 10.0.0.1 22' })).toBe('192.0.2.1')
  expect(sshPeer({ SSH_CONNECTION: 'fe80::1%eth0 5000 fe80::2%eth0 22' })).toBe('fe80::1')
  const { path, last, remove } = proc('A=1\0SSH_CONNECTION=2001:db8::5 1 2 3\0', 'A=1\0', 'B=SSH_CONNECTION=1.2.3.4\0', '')
  expect(sshPeer({}, last, path)).toBe('2001:db8::5')
  expect(sshPeer({}, 100, path)).toBe(null)
  expect(sshPeer({}, 7, path)).toBe(null)
  remove()
})

test('who is around the tunnel anyway is not cut off', () => {
  const nothing = { bypass: [], localNetwork: false }
  expect(isCutOff('192.0.2.1', nothing)).toBe(true)
  expect(isCutOff('192.168.1.7', nothing)).toBe(true)
  expect(isCutOff('192.168.1.7', { ...nothing, localNetwork: true })).toBe(false)
  expect(isCutOff('192.0.2.1', { ...nothing, localNetwork: true })).toBe(true)
  expect(isCutOff('192.0.2.1', { ...nothing, bypass: ['192.0.2.0/24'] })).toBe(false)
  expect(isCutOff('2001:db8::1', { ...nothing, bypass: ['192.0.2.0/24'] })).toBe(true)
  for (const loopback of ['127.0.0.1', '::1']) expect(isCutOff(loopback, nothing)).toBe(false)
  expect(isCutOff('UNKNOWN', nothing)).toBe(false)
})
