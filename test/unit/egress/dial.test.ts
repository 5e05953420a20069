import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { formatIp, type IpAddress, parseIp } from '../../../src/base/index.ts'
import { dialFirst, dialOrder } from '../../../src/egress/dial.ts'
import type { ExitSocket } from '../../../src/egress/index.ts'
import type { EndReason } from '../../../src/onion/index.ts'
import { ExitRefusal } from '../../../src/relaying/index.ts'

const never = new AbortController().signal
const options = { attemptDelayMs: 250, attemptTimeoutMs: 1000 }
const ips = (...texts: string[]): IpAddress[] => texts.map(parseIp)

describe('the order of addresses', () => {
  it('is families in turn, IPv6 first, each as answered, and no more than allowed', () => {
    const order = dialOrder(ips('1.0.0.1', '1.0.0.2', '2::1', '2::2', '2::3'), 4)
    expect(order.map(formatIp)).toEqual(['2::1', '1.0.0.1', '2::2', '1.0.0.2'])
    expect(dialOrder(ips('1.0.0.1', '1.0.0.2'), 9).map(formatIp)).toEqual(['1.0.0.1', '1.0.0.2'])
  })
})

describe('dialling', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  /** Attempts that end as the script says: after `ms`, with a socket or a failure. What is not in the script never ends. */
  function script(steps: Record<string, { ms: number; fails?: EndReason }>) {
    const log: string[] = []
    const start = Date.now()
    const say = (text: string): void => void log.push(`${Date.now() - start} ${text}`)
    const attempt = (address: IpAddress, signal: AbortSignal): Promise<ExitSocket> => {
      const name = formatIp(address)
      say(`try ${name}`)
      return new Promise((resolve, reject) => {
        signal.addEventListener('abort', () => {
          say(`drop ${name}`)
          reject(signal.reason)
        })
        const step = steps[name]
        if (!step) return
        setTimeout(() => {
          if (step.fails) reject(new ExitRefusal(step.fails, 'scripted'))
          else resolve({ name, resetAndDestroy: () => say(`reset ${name}`) } as unknown as ExitSocket)
        }, step.ms)
      })
    }
    return { attempt, log }
  }

  it('takes the first when it is quick', async () => {
    const { attempt, log } = script({ '1.0.0.1': { ms: 10 } })
    const dialling = dialFirst(ips('1.0.0.1', '1.0.0.2'), attempt, options, never)
    await vi.runAllTimersAsync()
    expect(formatIp((await dialling).address)).toBe('1.0.0.1')
    expect(log).toEqual(['0 try 1.0.0.1'])
  })

  it('starts the next beside a slow one, and gives the loser up', async () => {
    const { attempt, log } = script({ '1.0.0.2': { ms: 100 } })
    const dialling = dialFirst(ips('1.0.0.1', '1.0.0.2'), attempt, options, never)
    await vi.runAllTimersAsync()
    expect(formatIp((await dialling).address)).toBe('1.0.0.2')
    expect(log).toEqual(['0 try 1.0.0.1', '250 try 1.0.0.2', '350 drop 1.0.0.1'])
  })

  it('starts the next at once when one fails', async () => {
    const { attempt, log } = script({ '1.0.0.1': { ms: 20, fails: 'unreachable' }, '1.0.0.2': { ms: 20 } })
    const dialling = dialFirst(ips('1.0.0.1', '1.0.0.2'), attempt, options, never)
    await vi.runAllTimersAsync()
    expect(formatIp((await dialling).address)).toBe('1.0.0.2')
    expect(log).toEqual(['0 try 1.0.0.1', '20 try 1.0.0.2'])
  })

  it('closes a connection that came too late', async () => {
    const { attempt, log } = script({ '1.0.0.2': { ms: 10 } })
    // An attempt that does not listen to its signal, as a backend of the future might.
    let late = (_: ExitSocket): void => {}
    const deaf = (address: IpAddress, signal: AbortSignal): Promise<ExitSocket> =>
      formatIp(address) === '1.0.0.1'
        ? new Promise((resolve) => {
            late = resolve
          })
        : attempt(address, signal)
    const dialling = dialFirst(ips('1.0.0.1', '1.0.0.2'), deaf, options, never)
    await vi.runAllTimersAsync()
    await dialling
    late({ resetAndDestroy: () => log.push('reset the late one') } as unknown as ExitSocket)
    await vi.runAllTimersAsync()
    expect(log.at(-1)).toBe('reset the late one')
  })

  it.each<[EndReason[], EndReason]>([
    [['unreachable', 'refused'], 'refused'],
    [['unreachable', 'timeout'], 'timeout'],
    [['unreachable', 'unreachable'], 'unreachable'],
    [['refused', 'resource-limit'], 'resource-limit'],
  ])('of the failures %j tells the most telling: %s', async (fails, told) => {
    const { attempt } = script(Object.fromEntries(fails.map((reason, i) => [`1.0.0.${i}`, { ms: 5, fails: reason }])))
    const dialling = dialFirst(
      fails.map((_, i) => parseIp(`1.0.0.${i}`)),
      attempt,
      options,
      never,
    )
    const refused = expect(dialling).rejects.toMatchObject({ reason: told })
    await vi.runAllTimersAsync()
    await refused
  })

  it('gives each attempt only its time', async () => {
    const { attempt, log } = script({})
    const dialling = dialFirst(ips('1.0.0.1'), attempt, options, never)
    const refused = expect(dialling).rejects.toMatchObject({ reason: 'timeout' })
    await vi.runAllTimersAsync()
    await refused
    expect(log).toEqual(['0 try 1.0.0.1', '1000 drop 1.0.0.1'])
  })

  it("ends with the asker's signal, and starts nothing more", async () => {
    const { attempt, log } = script({})
    const abort = new AbortController()
    const dialling = dialFirst(ips('1.0.0.1', '1.0.0.2', '1.0.0.3'), attempt, options, abort.signal)
    const gone = new ExitRefusal('internal', 'gone')
    const refused = expect(dialling).rejects.toBe(gone)
    await vi.advanceTimersByTimeAsync(100)
    abort.abort(gone)
    await vi.runAllTimersAsync()
    await refused
    expect(log).toEqual(['0 try 1.0.0.1', '100 drop 1.0.0.1'])
    await expect(dialFirst(ips('1.0.0.1'), attempt, options, AbortSignal.abort(gone))).rejects.toBe(gone)
  })

  it('refuses when there is no address', async () => {
    await expect(dialFirst([], script({}).attempt, options, never).catch((error) => error.reason)).resolves.toBe('resolve-failed')
  })
})
