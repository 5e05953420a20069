import { messageOf, parseIp, SeededRandom, ShallotError } from '../../../src/base/index.ts'
import { Deadline } from '../../../src/drive/index.ts'
import { Stack, StackOnPort } from '../../../src/netstack/index.ts'
import type { PacketPort } from '../../../src/packet/index.ts'
import { adoptTun, openTun } from '../../../src/tun/index.ts'
import { testHash } from '../../support/virtual-net.ts'

/**
 * A program of its own with a TUN, for what a test can't do in its own process: `adopt` answers pings over descriptor 3; `take NAME` over a device
 * that was prepared for this user; `open NAME` makes one; `close` opens, uses and closes some, and has to end by itself. Prints one line.
 */
const [what, name = 'tun-p'] = process.argv.slice(2)

/** Answers pings to 10.9.0.2 and fd09::2. */
export function answer(port: PacketPort, ended: (code: string | null) => void): void {
  const stack = new Stack({
    addresses: [parseIp('10.9.0.2'), parseIp('fd09::2')],
    mtu: port.mtu,
    random: new SeededRandom(1),
    hash: testHash('tun'),
  })
  const now = () => performance.now()
  const driver = new StackOnPort({
    stack,
    port,
    now,
    soon: queueMicrotask,
    event: () => {},
    timeoutChanged: () => deadline.update(),
    ended: (error) => ended(error?.code ?? null),
  })
  const deadline = new Deadline(driver, now, () => driver.expired())
  driver.start()
}

async function closeMany(): Promise<void> {
  const ends: (string | null)[] = []
  for (let i = 0; i < 10; i++) {
    const port = await openTun({ name: 'tun-c%d', addresses: [`10.88.${i}.1/24`] })
    const end = (error: ShallotError | null): void => void ends.push(error?.code ?? null)
    port.attach({ packets: () => port.close(), drained: () => {}, ended: end })
    // At once, while it waits, and while it is paused.
    if (i % 3 === 0) port.close()
    else setTimeout(() => port.close(), 20)
    if (i % 3 === 2) port.pause()
  }
  process.on('exit', () => console.log(JSON.stringify({ ends })))
}

try {
  if (what === 'close') await closeMany()
  else if (what !== undefined) {
    const port = what === 'adopt' ? await adoptTun({ fd: 3, mtu: 1420 }) : await openTun({ name, setUp: what !== 'take' })
    answer(port, (code) => {
      console.log(JSON.stringify({ ended: code }))
    })
    console.log(JSON.stringify({ name: port.name, mtu: port.mtu, uid: process.getuid?.() }))
  }
} catch (error) {
  console.log(JSON.stringify({ code: error instanceof ShallotError ? error.code : null, message: messageOf(error) }))
}
