import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { silentLogger } from '../../src/base/index.ts'
import { Store } from '../../src/store/index.ts'
import { Program, projectRoot } from '../support/processes.ts'
import { EDITIONS, edition, FILES } from '../support/store-workload.ts'

const folders: string[] = []

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'shallot-crash-'))
  folders.push(path)
  return path
}

afterAll(async () => {
  for (const path of folders) await rm(path, { recursive: true, force: true })
})

/** One life in the directory, killed at a step; gives whether it came to its end. */
async function live(dir: string, at: number, how: string, log?: string): Promise<boolean> {
  const program = Program.start(
    process.execPath,
    ['--import', join(projectRoot, 'test/support/crash-at.ts'), join(projectRoot, 'test/support/store-workload.ts'), dir],
    { env: { CRASH_AT: String(at), CRASH_HOW: how, CRASH_UNDER: dir, CRASH_LOG: log } },
  )
  const { code, signal } = await program.exited
  expect(code === 0 || signal === 'SIGKILL', program.log).toBe(true)
  return code === 0
}

const editionsOf = (name: string): string[] => Array.from({ length: EDITIONS }, (_, n) => String(edition(name, n + 1)))

describe('a directory whose node was killed at any step of any write', () => {
  test('is taken again, holds whole files of some edition, and nothing of what was under way', async () => {
    const log = join(await folder(), 'steps')
    expect(await live(await folder(), 0, 'before', log)).toBe(true)
    const steps = Number(readFileSync(log, 'utf8'))
    expect(steps).toBeGreaterThan(FILES.length * EDITIONS * 5)
    const cases = Array.from({ length: steps }, (_, i) => i + 1).flatMap((at) =>
      (['before', 'middle', 'after'] as const).map((how) => ({ at, how })),
    )
    const check = async ({ at, how }: (typeof cases)[number]): Promise<void> => {
      const dir = await folder()
      const where = `killed ${how} step ${at}`
      expect(await live(dir, at, how), where).toBe(false)
      const store = await Store.open(dir, { logger: silentLogger })
      let before = EDITIONS
      for (const name of FILES) {
        const bytes = await store.read(name)
        const held = bytes === null ? 0 : editionsOf(name).indexOf(Buffer.from(bytes).toString()) + 1
        expect(bytes === null || held > 0, `${where}: ${name} is torn`).toBe(true)
        // In the order in which they were written, none is ahead of one before it.
        expect(held, `${where}: ${name}`).toBeLessThanOrEqual(before)
        before = held
        await store.write(name, edition(name, EDITIONS))
      }
      const left = readdirSync(dir, { recursive: true }).map(String).sort()
      expect(left, where).toEqual(['keys', 'lock', ...FILES].sort())
      await store.close()
      await rm(dir, { recursive: true, force: true })
    }
    const queue = [...cases]
    await Promise.all(
      [0, 1].map(async () => {
        for (let next = queue.shift(); next; next = queue.shift()) await check(next)
      }),
    )
  }, 300_000)

  test('gives up what another life left under way, and only that', async () => {
    const dir = await folder()
    for (const name of ['view.99999-1.tmp', 'lock.99999-3', 'notes.tmp', 'view.tmp']) writeFileSync(join(dir, name), 'x')
    const store = await Store.open(dir, { logger: silentLogger })
    await store.close()
    expect(readdirSync(dir).sort()).toEqual(['notes.tmp', 'view.tmp'])
  })
})
