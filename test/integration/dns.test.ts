import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Control } from '../support/control.ts'
import { hasCommand, killPid, run, startTestnet, type Testnet, temporaryFolder, until } from '../support/processes.ts'
import { dnsAnswer, RawDnsServer, type Script, txtData } from '../support/raw-dns-server.ts'

/** What the exits' server knows. Truncated by UDP is all that does not fit. */
const zone: Script = (asked, via) => {
  const { name, type } = asked.question!
  if (type === 16) {
    const answer = dnsAnswer(asked, [txtData(`${name} ${'x'.repeat(name.startsWith('long') ? 4000 : 10)}`)])
    return [
      via === 'udp' && answer.length > 1232 ? Uint8Array.from(dnsAnswer(asked, []), (byte, i) => (i === 2 ? byte | 2 : byte)) : answer,
    ]
  }
  if (type === 1) return [dnsAnswer(asked, [Uint8Array.of(8, 8, 4, 4)])]
  return [dnsAnswer(asked, [Uint8Array.of(0xc0, 0x0c, 0xff)])]
}

describe.skipIf(!(await hasCommand('dig')))('dig through a mesh (Debian: bind9-dnsutils)', () => {
  const folder = temporaryFolder('dns')
  let server: RawDnsServer
  let testnet: Testnet
  let control: Control
  let at: string[]

  beforeAll(async () => {
    server = await RawDnsServer.start(zone)
    const limits = join(folder.path, 'exits.toml')
    writeFileSync(limits, `[exit]\nresolvers = ["${server.address}"]\n`)
    testnet = await startTestnet({ relays: 5, exits: 3, more: ['--relay-config', limits] })
    control = new Control(testnet.ready.control, testnet.client.dir)
    const [host, port] = (await control.status()).dns!.split(':')
    at = [`@${host}`, '-p', port!, '+tries=1', '+time=20']
  })
  afterAll(async () => {
    await testnet?.stop()
    server?.close()
    folder.remove()
  })

  const dig = async (...args: string[]): Promise<string> => {
    const { code, stdout, log } = await run('dig', [...at, ...args])
    expect(code, log).toBe(0)
    return stdout
  }

  test('any type comes whole, asked at the exit, of one resolver stream', async () => {
    expect((await dig('+short', 'a.example')).trim()).toBe('8.8.4.4')
    expect((await dig('+short', 'long.example', 'TXT')).length).toBeGreaterThan(4000)
    expect(await dig('+short', 'odd.example', 'TYPE65280')).toMatch(/\\# 3 C00CFF/)
    expect(server.asked.map(({ asked, via }) => `${via} ${asked.question!.type}`)).toEqual(['udp 1', 'udp 16', 'tcp 16', 'udp 65280'])
    expect(server.asked.every(({ asked }) => asked.edns?.options.length === 0)).toBe(true)
    expect((await control.streams()).filter(({ kind }) => kind === 'dns')).toHaveLength(1)
  })

  test('a question survives the exit that it was asked at', async () => {
    let go: (() => void) | undefined
    const waiting = new Promise<void>((resolve) => {
      go = resolve
    })
    server.script = async (asked, via) => {
      await waiting
      return zone(asked, via)
    }
    const before = server.asked.length
    const answer = dig('+short', 'held.example')
    await until('the exit has asked', 20_000, () => server.asked.length > before)
    const stream = (await control.streams()).find(({ kind }) => kind === 'dns')!
    const circuit = (await control.circuits()).find(({ id }) => id === stream.circuit)!
    killPid(testnet.node(circuit.path.at(-1)!.id).pid, 'SIGKILL')
    server.script = zone
    expect((await answer).trim()).toBe('8.8.4.4')
    go!()
  })

  test('where no exit has a server that answers, that is said', async () => {
    server.script = (asked) => [dnsAnswer(asked, [], 0, 2)]
    expect(await dig('fails.example')).toMatch(/status: SERVFAIL/)
  })
})
