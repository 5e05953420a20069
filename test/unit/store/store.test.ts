import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { MalformedError, silentLogger } from '../../../src/base/index.ts'
import { createFile, processMark, Store, type StoreWarning } from '../../../src/store/index.ts'
import { temporaryFolder } from '../../support/processes.ts'

let folder: { path: string; remove(): void }
const opened: Store[] = []
beforeEach(() => {
  folder = temporaryFolder('store')
})
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close()
  folder.remove()
})

async function openStore(dir = join(folder.path, 'node'), warn?: (warning: StoreWarning) => void): Promise<Store> {
  const store = await Store.open(dir, { logger: silentLogger, ...(warn ? { warn } : {}) })
  opened.push(store)
  return store
}
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (value: Uint8Array): string => new TextDecoder().decode(value)
const failing = (): never => {
  throw new MalformedError('view', 'cut off')
}

describe('files', () => {
  test('are private to their owner, as is the directory', async () => {
    const store = await openStore()
    await store.write('keys/identity', bytes('secret'))
    expect(statSync(store.dir).mode & 0o777).toBe(0o700)
    expect(statSync(store.path('keys')).mode & 0o777).toBe(0o700)
    expect(statSync(store.path('keys/identity')).mode & 0o777).toBe(0o600)
  })

  test('are replaced whole, and leave no temporary file behind', async () => {
    const store = await openStore()
    await store.write('view', bytes('first, and longer'))
    await store.write('view', bytes('second'))
    expect(text((await store.read('view'))!)).toBe('second')
    expect(readdirSync(store.dir).sort()).toEqual(['lock', 'view'])
  })

  test('hold the newest of many writes at once, and every write resolves after it', async () => {
    const store = await openStore()
    const writes = Array.from({ length: 50 }, (_, i) => store.write('view', bytes(`edition ${i}`)))
    await Promise.all(writes)
    expect(text((await store.read('view'))!)).toBe('edition 49')
  })

  test('are not overwritten by createFile', async () => {
    const path = join(folder.path, 'x')
    await createFile(path, 'one')
    await expect(createFile(path, 'two')).rejects.toMatchObject({ code: 'file-exists' })
    expect(readFileSync(path, 'utf8')).toBe('one')
  })

  test('that are missing read as null', async () => {
    const store = await openStore()
    expect(await store.read('nothing')).toBeNull()
    expect(await store.loadState('nothing', failing)).toBeNull()
    expect(await store.loadKey('nothing', failing)).toBeNull()
  })

  test('go on after a write that failed', async () => {
    const store = await openStore()
    mkdirSync(store.path('view'))
    writeFileSync(store.path('view/child'), '')
    await expect(store.write('view', bytes('x'))).rejects.toMatchObject({ kind: 'host' })
    await store.write('guards', bytes('y'))
    expect(text((await store.read('guards'))!)).toBe('y')
    expect(readdirSync(store.dir).filter((name) => name.endsWith('.tmp'))).toEqual([])
  })
})

describe('damaged files', () => {
  test('of state are kept aside, named in a warning, and the node goes on', async () => {
    const warnings: StoreWarning[] = []
    const store = await openStore(undefined, (warning) => warnings.push(warning))
    await store.write('view', bytes('garbage'))
    expect(await store.loadState('view', failing)).toBeNull()
    const kept = readdirSync(store.dir).find((name) => name.startsWith('view.corrupt-'))!
    expect(readFileSync(store.path(kept), 'utf8')).toBe('garbage')
    expect(existsSync(store.path('view'))).toBe(false)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toMatchObject({ code: 'state-corrupt', message: expect.stringContaining(kept) })
    expect(await store.loadState('view', failing)).toBeNull()
  })

  test('of a key stop the node, and stay where they are', async () => {
    const store = await openStore()
    await store.write('keys/identity', bytes('garbage'))
    await expect(store.loadKey('keys/identity', failing)).rejects.toMatchObject({
      code: 'key-corrupt',
      message: expect.stringContaining('keys/identity'),
    })
    expect(text((await store.read('keys/identity'))!)).toBe('garbage')
  })

  test('a key that others could read becomes private, with a warning', async () => {
    const warnings: StoreWarning[] = []
    const store = await openStore(undefined, (warning) => warnings.push(warning))
    writeFileSync(store.path('key'), 'k', { mode: 0o644 })
    expect(await store.loadKey('key', text)).toBe('k')
    expect(statSync(store.path('key')).mode & 0o777).toBe(0o600)
    expect(warnings.map((warning) => warning.code)).toEqual(['permissions'])
  })
})

describe('the directory', () => {
  test('is held by one node at a time: a second start is told who has it', async () => {
    const store = await openStore()
    await expect(openStore(store.dir)).rejects.toMatchObject({
      code: 'directory-in-use',
      message: expect.stringContaining(`process ${process.pid}`),
    })
    await opened.pop()!.close()
    await openStore(store.dir)
  })

  test('is taken over from a process that died', async () => {
    const dir = join(folder.path, 'node')
    mkdirSync(dir)
    const dead = spawnSync('true').pid
    writeFileSync(join(dir, 'lock'), `${dead} 12345\n`)
    await openStore(dir)
    expect(readFileSync(join(dir, 'lock'), 'utf8')).toMatch(new RegExp(`^${process.pid} `))
  })

  test.runIf(existsSync('/proc/self/stat'))('is taken over when the pid belongs to a younger process', async () => {
    const dir = join(folder.path, 'node')
    mkdirSync(dir)
    writeFileSync(join(dir, 'lock'), `${process.pid} 1\n`)
    await openStore(dir)
  })

  test.runIf(existsSync('/proc/self/stat'))('is taken over from a process that nobody has buried yet', async () => {
    const zombie = await makeZombie()
    try {
      const dir = join(folder.path, 'node')
      mkdirSync(dir)
      writeFileSync(join(dir, 'lock'), `${zombie.pid} ${zombie.mark}\n`)
      await openStore(dir)
      expect(readFileSync(join(dir, 'lock'), 'utf8')).toMatch(new RegExp(`^${process.pid} `))
    } finally {
      zombie.bury()
    }
  })

  test.runIf(existsSync('/proc/self/stat'))('is taken over from before the last boot, and not from a lock that tells no boot', async () => {
    const dir = join(folder.path, 'node')
    mkdirSync(dir)
    const [start] = (await processMark(process.pid))!.split('/')
    writeFileSync(join(dir, 'lock'), `${process.pid} ${start}\n`)
    await expect(openStore(dir)).rejects.toMatchObject({ code: 'directory-in-use' })
    writeFileSync(join(dir, 'lock'), `${process.pid} ${start}/another-boot\n`)
    await openStore(dir)
  })

  test.each(['', 'nonsense', '-1 5', '0', '\0\0\0\0'])('is taken over from a lock that says nothing: %j', async (content) => {
    const dir = join(folder.path, 'node')
    mkdirSync(dir)
    writeFileSync(join(dir, 'lock'), content)
    await openStore(dir)
  })

  test('that is taken by many starts at once goes to exactly one, also over a dead lock', async () => {
    const dir = join(folder.path, 'node')
    mkdirSync(dir)
    writeFileSync(join(dir, 'lock'), `${spawnSync('true').pid} 1\n`)
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => openStore(dir)))
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1)
    for (const result of results) if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'directory-in-use' })
  })

  test('that cannot be written is a typed error that names it', async () => {
    writeFileSync(join(folder.path, 'file'), '')
    await expect(openStore(join(folder.path, 'file', 'node'))).rejects.toMatchObject({
      code: 'directory-unwritable',
      message: expect.stringContaining('not a directory'),
    })
    if (existsSync('/proc')) await expect(openStore('/proc/shallot-test')).rejects.toMatchObject({ kind: 'host' })
  })

  test('is free again after close', async () => {
    const store = await openStore()
    await opened.pop()!.close()
    expect(readdirSync(store.dir)).toEqual([])
  })
})

/** A process that has ended, and whose parent does not care. */
async function makeZombie(): Promise<{ pid: number; mark: string; bury(): void }> {
  const parent = spawn('sh', ['-c', 'sleep 600 & echo $!; exec sleep 600'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(parent.stdout, 'data')) as [Buffer]
  const pid = Number(line)
  const mark = (await processMark(pid))!
  // The shell would bury its child; what takes its place never does.
  await until(() => readFileSync(`/proc/${parent.pid}/comm`, 'utf8') === 'sleep\n')
  process.kill(pid, 'SIGKILL')
  await until(() => /\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')))
  return { pid, mark, bury: () => parent.kill('SIGKILL') }
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((done) => setTimeout(done, 5))
}
