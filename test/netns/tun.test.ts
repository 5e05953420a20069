import { spawn, spawnSync } from 'node:child_process'
import dgram from 'node:dgram'
import { once } from 'node:events'
import fs from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
import { PacketBatch, type PacketPortHandlers } from '../../src/packet/index.ts'
import { adoptTun, createTun, openTun, type TunPort } from '../../src/tun/index.ts'
import { numberedPacket, PortRecorder } from '../compliance/packet-port.ts'
import { enterOwnNetwork, shellOk } from '../support/own-network.ts'
import { Program, run, until } from '../support/processes.ts'

const reason = enterOwnNetwork()
const program = new URL('support/tun-program.ts', import.meta.url).pathname
/** Nobody special. */
const NOBODY = 65_534
const asNobody = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--']
const mayRead = reason === null && spawnSync(asNobody[0]!, [...asNobody.slice(1), process.execPath, '--check', program]).status === 0

const addresses = ['10.9.0.1/24', 'fd09::1/64']
const ping = (address: string) => run('ping', ['-c', '3', '-i', '0.05', '-W', '3', '-s', '1000', address], { timeoutMs: 20_000 })
const openDescriptors = () => fs.readdirSync('/proc/self/fd').length
const isThere = (name: string) => spawnSync('ip', ['link', 'show', 'dev', name]).status === 0
const counters = (name: string) =>
  (JSON.parse(shellOk(`ip -json -statistics link show dev ${name}`)) as { stats64: { rx: Counters; tx: Counters } }[])[0]!.stats64

interface Counters {
  readonly packets: number
  readonly dropped: number
}

const open: TunPort[] = []
const programs: Program[] = []
afterEach(async () => {
  for (const port of open.splice(0)) port.close()
  for (const one of programs.splice(0)) await one.stop('SIGKILL')
})

async function opened(name: string, handlers: PacketPortHandlers = new PortRecorder()): Promise<TunPort> {
  const port = await openTun({ name, addresses })
  open.push(port)
  port.attach(handlers)
  return port
}

function started(what: string, args: readonly string[] = [], wrapper: readonly string[] = []): Program {
  const one = Program.node(program, [what, ...args], { wrapper })
  programs.push(one)
  return one
}

/** A script in which /dev/net is another folder; $PROGRAM runs the program as nobody. */
const withOtherDevices = (prepare: string, more: string) =>
  [
    'unshare',
    ['--mount', 'sh', '-ec', `mount -t tmpfs none /dev/net; ${prepare}; exec ${asNobody.join(' ')} ${process.execPath} ${program} ${more}`],
  ] as const

describe.skipIf(reason !== null)(`a TUN on this kernel${reason === null ? '' : ` (${reason})`}`, () => {
  test('a netstack over it answers pings, both families; the kernel names the device', async () => {
    const holder = started('open', ['tun-e%d'])
    const [line] = await holder.waitFor(/^\{.*name.*\}$/m, 10_000)
    expect(JSON.parse(line)).toMatchObject({ name: 'tun-e0', mtu: 1420 })
    shellOk('ip address add 10.9.0.1/24 dev tun-e0; ip address add fd09::1/64 dev tun-e0 nodad')
    for (const address of ['10.9.0.2', 'fd09::2']) {
      const { code, stdout } = await ping(address)
      expect(code, stdout).toBe(0)
      expect(stdout).toContain('3 received')
    }
    await holder.stop('SIGKILL')
    expect(isThere('tun-e0')).toBe(false)
  })

  test('the device has the MTU, the queue and the addresses that were asked for', async () => {
    const port = await openTun({ name: 'tun-s', mtu: 1300, addresses, queuePackets: 77 })
    open.push(port)
    const shown = shellOk('ip address show dev tun-s')
    for (const part of ['mtu 1300', 'qlen 77', '10.9.0.1/24', 'fd09::1/64', 'LOWER_UP']) expect(shown).toContain(part)
    // None of the kernel's own making.
    expect(shown).not.toContain('fe80:')
    expect(port).toMatchObject({ name: 'tun-s', mtu: 1300 })
  })

  test.each(['read from', 'paused'])('a device that is removed while it is %s ends the port with the reason', async (how) => {
    const before = openDescriptors()
    const recorder = new PortRecorder()
    const port = await opened('tun-r', recorder)
    if (how === 'paused') port.pause()
    shellOk('ip link delete dev tun-r')
    await until('the end', 5000, () => recorder.ends.length > 0)
    expect(recorder.ends).toMatchObject([{ code: 'tun-removed', kind: 'host', retry: 'later' }])
    expect(openDescriptors()).toBeLessThanOrEqual(before + 2)
  })

  test('a device that is down drops and counts, and goes on when it is up again', async () => {
    const recorder = new PortRecorder()
    const port = await opened('tun-d', recorder)
    const batch = new PacketBatch(2, 400)
    batch.add(numberedPacket(1))
    batch.add(numberedPacket(2))
    shellOk('ip link set dev tun-d down')
    expect(port.send(batch)).toBe(2)
    expect(port.stats).toMatchObject({ droppedPackets: 2, sentPackets: 0 })
    shellOk('ip link set dev tun-d up')
    expect(port.send(batch)).toBe(2)
    expect(port.stats).toMatchObject({ droppedPackets: 2, sentPackets: 2 })
    expect(recorder.ends).toEqual([])
  })

  test.each([
    ['that fit the queue, whole', 500],
    ['that overrun it, but for what the device counts as dropped', 10_000],
  ])('10,000 packets from the kernel come in bursts %s, in order', async (_how, burst) => {
    const recorder = new PortRecorder()
    await opened('tun-b', recorder)
    const socket = dgram.createSocket('udp4')
    socket.connect(9, '10.9.0.2')
    await once(socket, 'connect')
    const most = 10_000
    const counted = () => counters('tun-b').tx.dropped + recorder.numbers.length
    for (let sent = 0; sent < most; ) {
      // Connected, the socket sends at once, and the port is not read meanwhile.
      for (const end = sent + burst; sent < end; ) socket.send(numberedPacket(sent++).subarray(28))
      const isDone = () => recorder.numbers.length >= sent || counted() >= sent
      await until('all are accounted for', 10_000, isDone, 5)
    }
    socket.close()
    const { tx } = counters('tun-b')
    expect(recorder.numbers.length + tx.dropped).toBeGreaterThanOrEqual(most)
    // The kernel's own few (group membership reports) may be among the dropped.
    expect(recorder.numbers.length + tx.dropped).toBeLessThan(most + 10)
    if (burst < 1000) expect(recorder.numbers.length).toBe(most)
    else expect(tx.dropped).toBeGreaterThan(0)
    expect([...recorder.numbers].sort((a, b) => a - b)).toEqual(recorder.numbers)
    expect(recorder.wrong).toBeNull()
  })

  test('a burst of 10,000 packets into the kernel arrives there whole', async () => {
    const port = await opened('tun-k')
    const batch = new PacketBatch(100, 100 * 104)
    for (let i = 0; i < 100; i++) batch.add(numberedPacket(i))
    const { rx: before } = counters('tun-k')
    for (let i = 0; i < 100; i++) expect(port.send(batch)).toBe(100)
    const { rx } = counters('tun-k')
    expect(rx.packets + rx.dropped - before.packets - before.dropped).toBe(10_000)
    expect(port.stats).toMatchObject({ sentPackets: 10_000, sentBytes: 1_000_000, droppedPackets: 0 })
  })

  test('opening and closing leaves no descriptor and no device', async () => {
    await openTun({ name: 'tun-l' }).then((port) => port.close())
    await new Promise((resolve) => setTimeout(resolve, 50))
    const before = openDescriptors()
    for (let i = 0; i < 20; i++) {
      const port = await openTun({ name: 'tun-l', addresses })
      const recorder = new PortRecorder()
      if (i % 2 === 0) port.attach(recorder)
      port.close()
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(openDescriptors()).toBeLessThanOrEqual(before)
    expect(isThere('tun-l')).toBe(false)
  })

  test('a process that closed its devices ends by itself', async () => {
    const { code, stdout, log } = await run(process.execPath, [program, 'close'], { timeoutMs: 20_000 })
    expect(code, log).toBe(0)
    expect(JSON.parse(stdout)).toEqual({ ends: Array(10).fill(null) })
  })

  test('a name that is in use, a device of another kind and a descriptor of another thing are refused with the reason', async () => {
    await opened('tun-u')
    await expect(openTun({ name: 'tun-u' })).rejects.toMatchObject({ code: 'tun-unavailable', retry: 'later' })
    await expect(openTun({ name: 'lo' })).rejects.toMatchObject({ code: 'tun-unavailable' })
    const fd = fs.openSync('/dev/null', 'r+')
    await expect(adoptTun({ fd, mtu: 1420 })).rejects.toMatchObject({ code: 'tun-unavailable' })
    // It is still the caller's.
    fs.closeSync(fd)
  })

  test('an address that the kernel refuses leaves nothing behind', async () => {
    const before = openDescriptors()
    await expect(openTun({ name: 'tun-a', addresses: ['::/64'] })).rejects.toMatchObject({ code: 'tun-unavailable' })
    expect(isThere('tun-a')).toBe(false)
    expect(openDescriptors()).toBeLessThanOrEqual(before)
  })
})

describe.skipIf(!mayRead)(
  `a TUN without privileges${mayRead ? '' : ` (${reason ?? 'this clone is not readable for others, or setpriv is missing'})`}`,
  () => {
    test('handed over by descriptor it works, and goes with its last holder', async () => {
      const { fd, name } = await createTun({ name: 'tun-h', addresses })
      const child = spawn(process.execPath, [program, 'adopt'], { uid: NOBODY, gid: NOBODY, stdio: ['ignore', 'pipe', 'inherit', fd] })
      try {
        fs.closeSync(fd)
        const [line] = (await once(child.stdout!, 'data')) as [Buffer]
        expect(JSON.parse(line.toString())).toEqual({ name, mtu: 1420, uid: NOBODY })
        expect((await ping('10.9.0.2')).stdout).toContain('3 received')
        expect((await ping('fd09::2')).stdout).toContain('3 received')
      } finally {
        child.kill('SIGKILL')
        await once(child, 'exit')
      }
      await until('the device is gone', 5000, () => !isThere(name))
    })

    test('making one is refused, and the refusal says what would do', async () => {
      for (const prepare of ['mknod -m 600 /dev/net/tun c 10 200', 'mknod -m 666 /dev/net/tun c 10 200']) {
        const [command, args] = withOtherDevices(prepare, 'open tun-n')
        const { stdout, log } = await run(command, args)
        expect(JSON.parse(stdout), log).toMatchObject({ code: 'tun-not-permitted', message: expect.stringContaining('CAP_NET_ADMIN') })
      }
    })

    test('without the kernel’s device node it says so', async () => {
      const [command, args] = withOtherDevices('true', 'open tun-n')
      const { stdout, log } = await run(command, args)
      expect(JSON.parse(stdout), log).toMatchObject({ code: 'tun-unavailable', message: expect.stringContaining('modprobe tun') })
    })

    test('a device that was prepared for the user is taken as it is', async () => {
      shellOk(`ip tuntap add mode tun user ${NOBODY} name tun-q; ip link set tun-q mtu 1400 up; ip address add 10.9.0.1/24 dev tun-q`)
      try {
        const [command, args] = withOtherDevices('mknod -m 666 /dev/net/tun c 10 200', 'take tun-q')
        const holder = Program.start(command, args)
        programs.push(holder)
        const [line] = await holder.waitFor(/^\{.*\}$/m, 10_000)
        expect(JSON.parse(line)).toEqual({ name: 'tun-q', mtu: 1400, uid: NOBODY })
        expect((await ping('10.9.0.2')).stdout).toContain('3 received')
      } finally {
        shellOk('ip tuntap del mode tun name tun-q || ip link delete tun-q')
      }
    })
  },
)
