import { createSocket, type Socket } from 'node:dgram'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { MappingNetwork } from '../../../../src/nat/mapping/gateway.ts'

/** A router on the loopback that speaks PCP or NAT-PMP, and lies as it is told. */
export class FakeControlGateway {
  readonly mappings = new Map<number, number>()
  readonly #socket: Socket
  /** 'pcp', 'nat-pmp' or silence. */
  speaks: 'pcp' | 'nat-pmp' | 'nothing' = 'pcp'
  externalIp = '11.9.9.9'
  /** Given in place of the wanted port. */
  port: number | null = null
  result = 0
  lifetime: number | null = null
  /** Replaces the answer. */
  garble: ((answer: Buffer) => Buffer[]) | null = null
  requests = 0
  nonces = new Set<string>()

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('message', (message, from) => {
      this.requests++
      const answer = this.#answer(message)
      if (answer === null) return
      for (const datagram of this.garble?.(answer) ?? [answer]) socket.send(datagram, from.port, from.address)
    })
  }

  static async open(): Promise<FakeControlGateway> {
    const socket = createSocket('udp4')
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
    return new FakeControlGateway(socket)
  }

  get controlPort(): number {
    return this.#socket.address().port
  }

  /** Forgets everything, as a router does that restarts. */
  restart(): void {
    this.mappings.clear()
  }

  close(): void {
    this.#socket.close()
  }

  #answer(message: Buffer): Buffer | null {
    if (this.speaks === 'nothing') return null
    if (this.speaks === 'nat-pmp') return message[0] === 0 ? this.#pmp(message) : Buffer.from([0, 0x81, 0, 1, 0, 0, 0, 9])
    return message[0] === 2 ? this.#pcp(message) : null
  }

  #pcp(message: Buffer): Buffer {
    const answer = Buffer.alloc(60)
    message.copy(answer, 24, 24, 60)
    this.nonces.add(message.toString('hex', 24, 36))
    const lifetime = message.readUInt32BE(4)
    const internal = message.readUInt16BE(40)
    answer[0] = 2
    answer[1] = 0x81
    answer[3] = this.result
    answer.writeUInt32BE(lifetime === 0 ? 0 : (this.lifetime ?? lifetime), 4)
    answer.writeUInt32BE(1000, 8)
    answer.writeUInt16BE(this.#map(internal, message.readUInt16BE(42), lifetime), 42)
    Buffer.from([0xff, 0xff, ...this.externalIp.split('.').map(Number)]).copy(answer, 54)
    return answer
  }

  #pmp(message: Buffer): Buffer {
    if (message[1] === 0) {
      return Buffer.from([0, 128, 0, this.result, 0, 0, 3, 232, ...this.externalIp.split('.').map(Number)])
    }
    const answer = Buffer.alloc(16)
    answer[1] = 130
    answer.writeUInt16BE(this.result, 2)
    answer.writeUInt32BE(1000, 4)
    message.copy(answer, 8, 4, 6)
    const lifetime = message.readUInt32BE(8)
    answer.writeUInt16BE(this.#map(message.readUInt16BE(4), message.readUInt16BE(6), lifetime), 10)
    answer.writeUInt32BE(lifetime === 0 ? 0 : (this.lifetime ?? lifetime), 12)
    return answer
  }

  #map(internal: number, wanted: number, lifetime: number): number {
    if (this.result !== 0) return 0
    if (lifetime === 0) {
      this.mappings.delete(internal)
      return 0
    }
    const external = this.port ?? wanted
    this.mappings.set(internal, external)
    return external
  }
}

interface Entry {
  readonly client: string
  readonly port: number
  readonly lease: number
}

/** A UPnP gateway on the loopback: answers searches and SOAP calls. */
export class FakeUpnpGateway {
  readonly entries = new Map<number, Entry>()
  readonly calls: string[] = []
  readonly #socket: Socket
  readonly #web: Server
  version: 1 | 2 = 1
  externalIp = '11.8.8.8'
  searches = 0
  /** Ports that give error 718. */
  conflicts = new Set<number>()
  permanentOnly = false
  delayMs = 0
  /** Answers in place of the router: true when it did. */
  intercept: ((action: string, response: ServerResponse) => boolean) | null = null
  location: (() => string) | null = null
  description: (() => string) | null = null

  private constructor(socket: Socket, web: Server) {
    this.#socket = socket
    this.#web = web
    socket.on('message', (_message, from) => {
      this.searches++
      const answer = `HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: ${this.location?.() ?? this.url}\r\n\r\n`
      socket.send(answer, from.port, from.address)
    })
    web.on('request', (request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        setTimeout(() => this.#answer(String(request.headers.soapaction ?? ''), Buffer.concat(chunks).toString(), response), this.delayMs)
      })
    })
  }

  static async open(): Promise<FakeUpnpGateway> {
    const socket = createSocket('udp4')
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
    const web = createServer()
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve))
    return new FakeUpnpGateway(socket, web)
  }

  get searchPort(): number {
    return this.#socket.address().port
  }
  get url(): string {
    return `http://127.0.0.1:${(this.#web.address() as AddressInfo).port}/rootDesc.xml`
  }

  close(): void {
    this.#socket.close()
    this.#web.closeAllConnections()
    this.#web.close()
  }

  #answer(action: string, body: string, response: ServerResponse): unknown {
    const name = /#(\w+)/.exec(action)?.[1] ?? 'description'
    this.calls.push(name)
    if (this.intercept?.(name, response)) return null
    const value = (key: string): string => new RegExp(`<${key}>([^<]*)</${key}>`).exec(body)?.[1] ?? ''
    const port = Number(value('NewExternalPort'))
    const answer = (text = ''): unknown =>
      response.end(`<?xml version="1.0"?><s:Envelope><s:Body><u:${name}Response>${text}</u:${name}Response></s:Body></s:Envelope>`)
    const fail = (code: number): unknown => {
      response.statusCode = 500
      return response.end(
        `<s:Envelope><s:Body><s:Fault><detail><UPnPError><errorCode>${code}</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`,
      )
    }
    switch (name) {
      case 'description':
        return response.end(this.description?.() ?? descriptionXml(this.version))
      case 'GetExternalIPAddress':
        return answer(`<NewExternalIPAddress>${this.externalIp}</NewExternalIPAddress>`)
      case 'GetSpecificPortMappingEntry': {
        const entry = this.entries.get(port)
        if (entry === undefined) return fail(714)
        return answer(`<NewInternalPort>${entry.port}</NewInternalPort><NewInternalClient>${entry.client}</NewInternalClient>`)
      }
      case 'AddPortMapping': {
        if (this.conflicts.has(port)) return fail(718)
        const lease = Number(value('NewLeaseDuration'))
        if (this.permanentOnly && lease !== 0) return fail(725)
        this.entries.set(port, { client: value('NewInternalClient'), port: Number(value('NewInternalPort')), lease })
        return answer()
      }
      case 'DeletePortMapping':
        return this.entries.delete(port) ? answer() : fail(714)
      default:
        return fail(401)
    }
  }
}

export function descriptionXml(version: 1 | 2, control = '/ctl/IPConn'): string {
  return `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:${version}</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/no</controlURL></service></serviceList>
<deviceList><device><deviceList><device><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:${version}</serviceType><controlURL>${control}</controlURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>`
}

/** The network in which these gateways are: either may be absent. */
export function fakeNetwork(control: FakeControlGateway | null, upnp: FakeUpnpGateway | null): MappingNetwork {
  return {
    gateway: async () => (control === null ? null : '127.0.0.1'),
    localAddress: async () => '127.0.0.1',
    controlPort: control?.controlPort ?? 9,
    // Nobody answers where there is none: the discard port of the loopback.
    search: { host: '127.0.0.1', port: upnp?.searchPort ?? 9 },
    searchMs: 300,
  }
}
