import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Lab, reasonAgainstLab } from './lab/index.ts'

const reason = await reasonAgainstLab()
const megabyte = 1_048_576

describe.skipIf(reason !== null)('an emulated wire', () => {
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.build({ hosts: { near: {}, far: { wire: {} } }, homes: { home: { nat: 'port-restricted', wire: { delayMs: 10 } } } })
  })
  afterAll(() => lab?.remove())

  test('delays each way by what it is told', async () => {
    await lab.wires.change('far', { delayMs: 40 })
    expect(await shortestPingMs('far')).toBeGreaterThanOrEqual(80)
    expect(await shortestPingMs('far')).toBeLessThan(90)
    // Both wires of a way count.
    const { stdout } = await lab
      .home('home')
      .machine()
      .run('ping', ['-c', '3', '-i', '0.05', lab.host('far').address])
    expect(Number(/min\/avg\/max\/mdev = ([\d.]+)/.exec(stdout)?.[1])).toBeGreaterThanOrEqual(100)
  })

  test('loses the part it is told to, the same frames in each run', async () => {
    await lab.wires.change('far', { loss: 0.2 })
    const before = await lab.wires.stats('far')
    await lab.host('near').run('ping', ['-c', '400', '-i', '0.002', '-W', '1', lab.host('far').address])
    const [there, back] = await lab.wires.stats('far')
    const lost = there.lost + back.lost - before[0].lost - before[1].lost
    // 400 requests and about 320 answers cross it.
    expect(lost).toBeGreaterThan(100)
    expect(lost).toBeLessThan(190)
  })

  test('carries no more than its rate, and as much as that', async () => {
    await lab.wires.change('far', { bitsPerSecond: 40e6, delayMs: 5 })
    const seconds = await transfer(10 * megabyte)
    expect((10 * megabyte * 8) / seconds).toBeLessThan(40e6)
    expect((10 * megabyte * 8) / seconds).toBeGreaterThan(28e6)
    expect((await lab.wires.stats('far'))[0].bytes).toBeGreaterThan(10 * megabyte)
  })

  test('carries hundreds of megabits a second when nothing holds it back', async () => {
    await lab.wires.change('far', {})
    const seconds = await transfer(50 * megabyte)
    expect((50 * megabyte * 8) / seconds).toBeGreaterThan(100e6)
  })

  async function shortestPingMs(host: string): Promise<number> {
    const { stdout } = await lab.host('near').run('ping', ['-c', '5', '-i', '0.05', lab.host(host).address])
    return Number(/min\/avg\/max\/mdev = ([\d.]+)/.exec(stdout)?.[1])
  }

  /** Seconds that so many bytes take from the far host to the near one over TCP. */
  async function transfer(bytes: number): Promise<number> {
    const sender = `require('net').createServer((s) => { s.on('error', () => {}); s.end(Buffer.alloc(${bytes})) }).listen(9000, () => console.log('ready'))`
    const receiver = `const began = performance.now(); let n = 0; require('net').connect(9000, '${lab.host('far').address}').on('data', (d) => { n += d.length }).on('end', () => console.log(n, (performance.now() - began) / 1000))`
    const server = lab.host('far').start(process.execPath, ['-e', sender])
    try {
      await server.waitFor(/ready/, 10_000)
      const [received, seconds] = (await lab.host('near').runOk(process.execPath, ['-e', receiver])).split(' ').map(Number)
      expect(received).toBe(bytes)
      return seconds!
    } finally {
      await server.stop('SIGKILL')
    }
  }
})
