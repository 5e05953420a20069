import { fork } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { offerDescriptor, takeDescriptor } from '../../../src/tun/index.ts'

const dir = mkdtempSync(join(tmpdir(), 'shallot-handover-'))
const path = join(dir, 'socket')
afterEach(() => rmSync(path, { force: true }))

describe.skipIf(process.platform !== 'linux')('handing a descriptor over', () => {
  it('gives another process the open file, and takes the socket away', async () => {
    const file = join(dir, 'file')
    writeFileSync(file, 'what stands in it')
    const fd = openSync(file, 'r')
    rmSync(file)
    const child = fork(join(import.meta.dirname, '../../support/take-descriptor.ts'), [path], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    })
    const said = new Promise<string>((resolve) => child.stdout!.setEncoding('utf8').on('data', resolve))
    await new Promise((resolve) => child.once('message', resolve))
    await offerDescriptor(path, fd, { ready: () => child.send('offered') })
    closeSync(fd)
    expect(await said).toBe('what stands in it')
    expect(existsSync(path)).toBe(false)
  })

  it('works within one process too', async () => {
    const fd = openSync('/dev/null', 'r')
    let taken: Promise<number> | undefined
    await offerDescriptor(path, fd, {
      ready: () => {
        taken = takeDescriptor(path)
      },
    })
    const copy = await taken!
    expect(copy).not.toBe(fd)
    closeSync(fd)
    expect(readFileSync(copy, 'utf8')).toBe('')
    closeSync(copy)
  })

  it('gives up when nobody comes, when nobody offers, and when the other side goes away', async () => {
    const refusal = { code: 'descriptor-not-handed-over' }
    await expect(offerDescriptor(path, 0, { waitMs: 50 })).rejects.toMatchObject(refusal)
    expect(existsSync(path)).toBe(false)
    await expect(takeDescriptor(path)).rejects.toMatchObject({ ...refusal, message: expect.stringContaining('ENOENT') })
    let taken: Promise<unknown> | undefined
    const offer = offerDescriptor(path, 12_345, {
      ready: () => {
        taken = takeDescriptor(path).catch((error: unknown) => error)
      },
    })
    await expect(offer).rejects.toMatchObject({ ...refusal, message: expect.stringContaining('EBADF') })
    expect(await taken).toMatchObject({ ...refusal, message: expect.stringContaining('went away') })
  })

  it('refuses a path that no socket can have', async () => {
    for (const bad of ['', 'x'.repeat(108), 'a\0b'])
      await expect(takeDescriptor(bad)).rejects.toMatchObject({
        code: 'descriptor-not-handed-over',
        message: expect.stringContaining('107'),
      })
  })
})
