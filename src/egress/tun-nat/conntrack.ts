import fs from 'node:fs'
import { endianness } from 'node:os'
import { type IpAddress, type IpNetwork, ipFromBytes, networkContains } from '../../base/index.ts'
import { tunNatError } from './errors.ts'
import { loadNetlink, type NetlinkCalls } from './netlink-calls.ts'
import { attribute, attributes, type ConntrackMessage, CT_DELETE, CT_GET, messagesIn, NLM, nlmsg } from './netlink-message.ts'

/** The kernel's table of flows, as far as leases are concerned. */
export interface FlowTable {
  /** Forgets every flow that began at one of these addresses or networks. @throws ShallotError 'exit-tun-unavailable' | 'exit-tun-not-permitted' */
  forget(of: readonly (IpAddress | IpNetwork)[]): Promise<void>
  /** How many flows began at an address; stops counting at `most`. @throws as `forget` */
  count(of: IpAddress, most: number): Promise<number>
  close(): void
}

const ANSWER_SECONDS = 10
/** The kernel's answers come in pieces of at most 32 KiB (net/netlink/af_netlink.c). */
const ANSWER_BYTES = 65_536
/** Entries that are deleted by one write. */
const DELETES_PER_WRITE = 128
const EPERM = 1
const ENOENT = 2

/**
 * The kernel's connection tracking by netlink (nfnetlink_conntrack.h). Needs CAP_NET_ADMIN. Waiting for the kernel is left to libuv's threads:
 * its table may have a quarter of a million entries.
 */
export class KernelFlowTable implements FlowTable {
  readonly #calls: NetlinkCalls
  readonly #fd: number
  readonly #answer = new Uint8Array(ANSWER_BYTES)
  #sequence = 0
  #last: Promise<unknown> = Promise.resolve()
  #closed = false

  private constructor(calls: NetlinkCalls, fd: number) {
    this.#calls = calls
    this.#fd = fd
  }

  /** @throws ShallotError 'exit-tun-unavailable' */
  static async open(): Promise<KernelFlowTable> {
    const calls = await loadNetlink()
    const fd = calls.open({ waitSeconds: ANSWER_SECONDS })
    if (fd < 0) throw unavailable('no netlink socket')
    return new KernelFlowTable(calls, fd)
  }

  forget(of: readonly (IpAddress | IpNetwork)[]): Promise<void> {
    return this.#inTurn(async () => {
      for (const one of of) {
        const found: ConntrackMessage[] = []
        await this.#dump(one, (message) => void found.push(message))
        for (let i = 0; i < found.length; i += DELETES_PER_WRITE) await this.#delete(found.slice(i, i + DELETES_PER_WRITE))
      }
    })
  }

  count(of: IpAddress, most: number): Promise<number> {
    return this.#inTurn(async () => {
      let found = 0
      await this.#dump(of, () => void found++)
      return Math.min(found, most)
    })
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    void this.#last.finally(() => fs.closeSync(this.#fd))
  }

  /** One question at a time: the answers come on one socket. */
  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      if (this.#closed) throw unavailable('the connection tracking is closed')
      return step()
    })
    this.#last = turn.catch(() => {})
    return turn
  }

  /**
   * Every entry that began there. The kernel filters by address since 5.8, and only IPv4: of IPv6 ctnetlink_filter_match_tuple gives all but the one
   * wanted (6.18 still). So all of the family are asked for there, and whatever comes is looked through here.
   */
  async #dump(of: IpAddress | IpNetwork, found: (message: ConntrackMessage) => void): Promise<void> {
    const network = 'bits' in of ? of : { address: of, bits: of.bytes.length * 8 }
    const family = network.address.family
    const one = 'bits' in of || family === 6 ? [] : sourceFilter(of)
    const sequence = ++this.#sequence
    await this.#send(nlmsg(CT_GET, NLM.request | NLM.dump, sequence, family, attributes(...one)))
    for (;;) {
      for (const message of messagesIn(await this.#receive())) {
        if (message.sequence !== sequence) continue
        if (message.done) {
          if (message.error !== 0) throw refusal(message.error)
          return
        }
        if (message.source && networkContains(network, ipFromBytes(message.source))) found(message)
      }
    }
  }

  async #delete(entries: readonly ConntrackMessage[]): Promise<void> {
    const from = this.#sequence + 1
    const requests = entries.map(({ family, tuple, id, zone }) =>
      nlmsg(CT_DELETE, NLM.request | NLM.ack, ++this.#sequence, family, attributes(tuple, id, zone)),
    )
    const last = this.#sequence
    await this.#send(attributes(...requests))
    for (let answered = from; answered <= last; ) {
      for (const message of messagesIn(await this.#receive())) {
        if (message.sequence < from) continue
        // It may have ended by itself meanwhile.
        if (message.error !== 0 && message.error !== ENOENT) throw refusal(message.error)
        answered++
      }
    }
  }

  async #send(bytes: Uint8Array): Promise<void> {
    if ((await this.#calls.send(this.#fd, bytes)) !== bytes.length) throw unavailable('the kernel took no question')
  }

  /** Copied: the entries found are used after the next answer. */
  async #receive(): Promise<Uint8Array> {
    const length = await this.#calls.receive(this.#fd, this.#answer)
    if (length <= 0) throw unavailable('the kernel gave no answer')
    return this.#answer.slice(0, length)
  }
}

/** CTA_TUPLE_ORIG { CTA_TUPLE_IP { source } } and CTA_FILTER { CTA_FILTER_ORIG_FLAGS = CTA_FILTER_F_CTA_IP_SRC }. */
function sourceFilter({ bytes }: IpAddress): readonly Uint8Array[] {
  const nested = (type: number, body: Uint8Array) => attribute(type | 0x8000, body)
  const flags = new Uint8Array(4)
  new DataView(flags.buffer).setUint32(0, 1, endianness() === 'LE')
  return [nested(1, nested(1, attribute(1, bytes))), nested(25, attribute(1, flags))]
}

function unavailable(what: string) {
  return tunNatError(
    'exit-tun-unavailable',
    `${what}: the exit forgets the connections of a lease through it. Is the kernel's module nf_conntrack_netlink there (modprobe nf_conntrack_netlink)?`,
    'later',
  )
}

function refusal(error: number) {
  if (error === EPERM)
    return tunNatError(
      'exit-tun-not-permitted',
      "the kernel's connection tracking can't be asked: it needs CAP_NET_ADMIN, see exit/README.md",
    )
  return unavailable(`the kernel's connection tracking refused with error ${error}`)
}
