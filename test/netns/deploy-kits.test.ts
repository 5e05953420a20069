import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { hasCommand, projectRoot, run, temporaryFolder } from '../support/processes.ts'

// What can be said of the kits' files as they lie there. kits-in-debian.test.ts starts the units, containers-in-debian.test.ts the image.

const hasSystemd = await hasCommand('systemd-analyze')
const KITS = ['bootstrap', 'relay', 'exit'] as const

const unitOf = (kit: string): string => readFileSync(join(projectRoot, kit, 'shallot.service'), 'utf8')
const value = (unit: string, key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1]

describe.each(KITS)('the kit of a %s', (kit) => {
  test('has no file that its guide does not speak of', () => {
    const guide = readFileSync(join(projectRoot, kit, 'README.md'), 'utf8')
    const files = readdirSync(join(projectRoot, kit)).filter((file) => !['README.md', 'index.ts'].includes(file))
    expect(files.filter((file) => !guide.includes(`](${file})`))).toEqual([])
  })

  test.skipIf(!hasSystemd)('has a unit that systemd takes, and finds as tight as its guide says', async () => {
    const folder = temporaryFolder('kit-unit')
    const file = join(folder.path, 'shallot.service')
    writeFileSync(file, unitOf(kit).replaceAll('/opt/shallot', projectRoot))
    const verify = await run('systemd-analyze', ['verify', '--man=no', file])
    expect([verify.code, verify.log]).toEqual([0, ''])
    const security = await run('systemd-analyze', ['security', '--offline=true', '--threshold=25', file])
    expect(security.code, security.log).toBe(0)
    const score = /exposure level for shallot.service: (\S+)/.exec(security.log)?.[1]
    expect(readFileSync(join(projectRoot, kit, 'README.md'), 'utf8')).toContain(`gives it ${score} `)
    folder.remove()
  })

  test('is supervised, and given the time that a drain takes', () => {
    const unit = unitOf(kit)
    expect([value(unit, 'Type'), value(unit, 'NotifyAccess'), value(unit, 'WatchdogSec')]).toEqual(['notify', 'main', '60'])
    expect(Number(value(unit, 'TimeoutStopSec'))).toBeGreaterThanOrEqual(20 + 15)
    expect(readFileSync(join(projectRoot, kit, 'compose.yaml'), 'utf8')).toContain('stop_grace_period: 60s')
  })
})
