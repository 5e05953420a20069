import fs from 'node:fs'
import { type IpNetwork, parseIp, parseNetwork, ShallotError } from '../base/index.ts'
import { setUpDevice } from './set-up.ts'
import { TunSystem } from './system.ts'
import { TunPort, tunLimits } from './tun-port.ts'

export interface TunOptions {
  /** The device's name, at most 15 bytes; with %d the kernel puts a number in. Default "shallot%d". */
  readonly name?: string
  /** Bytes, 1280 to 65535; default 1420. */
  readonly mtu?: number
  /** Such as "10.9.0.1/24" and "fd09::1/64". */
  readonly addresses?: readonly string[]
  /** Packets that may wait in the kernel; default 1000. */
  readonly queuePackets?: number
  /** False: somebody has prepared the device, and it is taken as it is (the MTU too). Needs no privileges when it was prepared for this user. Default true. */
  readonly setUp?: boolean
}

/** A device that exists as long as its descriptor is open somewhere, in this process or in one that it is handed to. */
export interface TunDevice {
  readonly fd: number
  readonly name: string
  readonly mtu: number
}

/**
 * Makes a TUN device and sets it up, without reading from it: for `adoptTun` here, or to be handed to a process without privileges
 * (as a `stdio` descriptor of `spawn`). The caller owns the descriptor. Linux.
 * @throws ShallotError 'tun-not-on-this-platform' | 'tun-not-permitted' | 'tun-unavailable' | 'tun-bad-options'
 */
export async function createTun(options: TunOptions = {}): Promise<TunDevice> {
  const { name: asked = 'shallot%d', mtu = tunLimits.defaultMtu, queuePackets = tunLimits.queuePackets } = options
  // The kernel's own rules (dev_valid_name), and no second %; the name also stands in a line for `ip`.
  if (!/^(?!\.{1,2}$)[\w.-]+(%d)?$/.test(asked) || asked.startsWith('-') || asked.length > tunLimits.nameBytes)
    throw badOptions(`"${asked}" is no name of a device: up to ${tunLimits.nameBytes} letters, digits, ".", "_" and "-", and %d at the end`)
  checkMtu(mtu)
  if (!Number.isInteger(queuePackets) || queuePackets < 1) throw badOptions(`${queuePackets} is no number of packets that may wait`)
  const addresses = (options.addresses ?? []).map(deviceAddress)
  const system = await TunSystem.load()
  const fd = system.open(asked)
  try {
    const { name } = system.facts(fd)
    if (options.setUp === false) return { fd, name, mtu: checkMtu(system.mtuOf(name)) }
    await setUpDevice({ name, mtu, queuePackets, addresses })
    return { fd, name, mtu }
  } catch (error) {
    fs.closeSync(fd)
    throw error
  }
}

/**
 * A port over a descriptor of a TUN device (IFF_TUN | IFF_NO_PI) that was made here or handed over; it needs no privileges. The port owns the
 * descriptor and closes it, unless this throws. The device may be in another network namespace, so its MTU has to be told.
 * @throws ShallotError 'tun-not-on-this-platform' | 'tun-unavailable' | 'tun-bad-options'
 */
export async function adoptTun({ fd, mtu }: { readonly fd: number; readonly mtu: number }): Promise<TunPort> {
  checkMtu(mtu)
  const system = await TunSystem.load()
  const { name } = system.facts(fd)
  return new TunPort(system.descriptor(fd, name), { name, mtu })
}

/** A port over a device of its own, which goes with it. @throws ShallotError as `createTun` */
export async function openTun(options: TunOptions = {}): Promise<TunPort> {
  const device = await createTun(options)
  try {
    return await adoptTun(device)
  } catch (error) {
    fs.closeSync(device.fd)
    throw error
  }
}

function checkMtu(mtu: number): number {
  if (!Number.isInteger(mtu) || mtu < tunLimits.leastMtu || mtu > tunLimits.mostMtu)
    throw badOptions(`${mtu} is no MTU: ${tunLimits.leastMtu} to ${tunLimits.mostMtu} bytes`)
  return mtu
}

/** ADDRESS/BITS with the whole address, which `parseNetwork` cuts to the network's. */
function deviceAddress(text: string): IpNetwork {
  const host = text.split('/')[0]!
  try {
    if (host !== text) return { address: parseIp(host), bits: parseNetwork(text).bits }
  } catch {
    // Said below.
  }
  throw badOptions(`"${text}" is no address with its length, such as 10.9.0.1/24`)
}

function badOptions(message: string): ShallotError {
  return new ShallotError('tun-bad-options', message, { kind: 'usage', retry: 'never' })
}
