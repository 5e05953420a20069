import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { delay, type Program, temporaryFolder } from '../../support/processes.ts'
import { type Flow, FlowTable, flowKey } from './flows.ts'
import type { Machine } from './machine.ts'
import { PcapReader } from './pcap.ts'

/** The beginnings of connections, and all datagrams. An IPv6 header is 40 bytes long, TCP's flags are in byte 13 of its own. */
const filter = '(ip and tcp[tcpflags] & tcp-syn != 0) or (ip6 and ip6[6] = 6 and ip6[53] & 2 != 0) or udp'
const snapBytes = 96
/** tcpdump hands packets on at once, but it is a process that has to get its turn: until the file has what the counters have counted. */
const settleMs = 50
const longestSettleMs = 3000

/**
 * What crosses the internet of a lab: tcpdump tells who began, counters of nft tell how many bytes followed. Both look at packets as they come
 * in from a home or host, after its NAT.
 */
export class Observer {
  readonly #internet: Machine
  readonly #program: Program
  readonly #file: string
  readonly #removeFolder: () => void
  readonly #pcap = new PcapReader()
  readonly #table = new FlowTable()
  readonly #begunBefore = new Set<string>()
  #readBytes = 0
  #listings = 0

  static async start(internet: Machine): Promise<Observer> {
    const folder = temporaryFolder('lab')
    const file = join(folder.path, 'internet.pcap')
    const listen = ['-i', 'any', '-Q', 'in', '-y', 'LINUX_SLL2', '-n', '-s', String(snapBytes), '-B', '16384', '--immediate-mode']
    const program = internet.start('sh', ['-c', 'exec tcpdump "$@" 2>&1', 'sh', ...listen, '-U', '-Z', 'root', '-w', file, filter])
    await internet.shell(`nft list table inet watch >/dev/null 2>&1 || nft -f - <<'RULES'\n${counters}\nRULES`)
    await program.waitFor(/listening on/, 10_000)
    return new Observer(internet, program, file, folder.remove)
  }

  private constructor(internet: Machine, program: Program, file: string, removeFolder: () => void) {
    this.#internet = internet
    this.#program = program
    this.#file = file
    this.#removeFolder = removeFolder
  }

  /** All flows so far with their bytes, the oldest first. */
  async flows(): Promise<readonly Flow[]> {
    const bytes = await this.bytes()
    const deadline = performance.now() + longestSettleMs
    for (;;) {
      await delay(settleMs)
      this.#read()
      const missing = [...bytes.keys()].filter((key) => !this.#table.has(key) && !this.#begunBefore.has(key))
      if (missing.length === 0) break
      if (performance.now() < deadline) continue
      // Connections that began before the observer did.
      for (const key of missing) this.#begunBefore.add(key)
    }
    return this.#table.flows(bytes)
  }

  /** Bytes of IP so far by flow and direction: see `flowKey`. */
  async bytes(): Promise<ReadonlyMap<string, number>> {
    const found = new Map<string, number>()
    for (const family of ['4', '6']) {
      // By a file: of long outputs only the end is kept.
      const listing = `${this.#file}.${this.#listings++}`
      await this.#internet.runOk('sh', ['-c', `nft -j -n list set inet watch flows${family} >'${listing}'`])
      const text = readFileSync(listing, 'utf8')
      rmSync(listing)
      for (const { set } of (JSON.parse(text) as Listing).nftables) {
        for (const { elem } of set?.elem ?? []) {
          const [from, to, protocol, fromPort, toPort] = elem.val.concat
          const name = Number(protocol) === 6 || protocol === 'tcp' ? 'tcp' : 'udp'
          const key = flowKey(name, { ip: String(from), port: Number(fromPort) }, { ip: String(to), port: Number(toPort) })
          found.set(key, elem.counter.bytes)
        }
      }
    }
    return found
  }

  /** Bytes that went to and came from an address, all flows together: what a relay has carried counts twice. */
  async bytesAt(address: string): Promise<number> {
    let sum = 0
    for (const [key, bytes] of await this.bytes()) if (key.includes(` ${address} `)) sum += bytes
    return sum
  }

  #read(): void {
    const bytes = readFileSync(this.#file)
    for (const packet of this.#pcap.read(bytes.subarray(this.#readBytes))) this.#table.add(packet)
    this.#readBytes = bytes.length
  }

  async stop(): Promise<void> {
    if (this.#program.exit === null) await this.#program.stop('SIGTERM').catch(() => {})
    this.#removeFolder()
  }
}

interface Listing {
  readonly nftables: readonly {
    readonly set?: {
      readonly elem?: readonly {
        readonly elem: { readonly val: { readonly concat: readonly (string | number)[] }; readonly counter: { readonly bytes: number } }
      }[]
    }
  }[]
}

const counters = `
table inet watch {
  set flows4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; flags dynamic; counter; size 65535; }
  set flows6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service; flags dynamic; counter; size 65535; }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ip protocol { tcp, udp } update @flows4 { ip saddr . ip daddr . meta l4proto . th sport . th dport counter }
    meta nfproto ipv6 meta l4proto { tcp, udp } update @flows6 { ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport counter }
  }
}`
