import { isIpText, MalformedError, messageOf, ShallotError } from '../../base/index.ts'
import { askByHttp } from './exchange.ts'
import type { Gateway, Grant } from './gateway.ts'
import { type Element, elementsNamed, escapeXml, parseXml, textOf } from './xml.ts'

/** WANIPConnection:1 §2.4, WANIPConnection:2 §2.5, and WANPPPConnection:1, which has the same actions. The best first. */
const SERVICES = [
  'urn:schemas-upnp-org:service:WANIPConnection:2',
  'urn:schemas-upnp-org:service:WANIPConnection:1',
  'urn:schemas-upnp-org:service:WANPPPConnection:1',
]
/** What the router's list of mappings shows: nothing that says more than it must. */
const DESCRIPTION = 'TCP forwarding'
/** Ports tried when the wanted one is another's. */
const PORTS_TRIED = 4
const PORT_STEP = 1_013

/** UPnP error codes, UPnP Device Architecture 1.1 §3.2.5 and WANIPConnection. */
const NO_SUCH_ENTRY = 714
const CONFLICT = 718
const SAME_PORTS_ONLY = 724
const PERMANENT_ONLY = 725
const WORDS: Readonly<Record<number, string>> = {
  401: 'does not know the request',
  402: 'finds the request malformed',
  501: 'failed',
  606: 'does not allow it',
  [CONFLICT]: 'forwards that port to another machine',
  [SAME_PORTS_ONLY]: 'forwards only to the same port',
  728: 'has no room for more mappings',
  729: 'says that it conflicts with another setting',
}

export class UpnpGateway implements Gateway {
  readonly protocol = 'upnp'
  readonly #control: URL
  readonly #service: string
  readonly #local: string
  readonly #timeoutMs: number
  /** External ports that this node asked for and may hold. */
  readonly #claimed = new Set<number>()

  private constructor(control: URL, service: string, local: string, timeoutMs: number) {
    this.#control = control
    this.#service = service
    this.#local = local
    this.#timeoutMs = timeoutMs
  }

  /**
   * Reads the description of a device. @param local this machine's address towards it
   * @throws ShallotError 'no-answer', 'refused' when it is no gateway that forwards ports; MalformedError
   */
  static async open(location: URL, local: string, timeoutMs: number, signal: AbortSignal): Promise<UpnpGateway> {
    const { status, text } = await askByHttp(location, { timeoutMs, signal })
    if (status !== 200) throw refused(`its description cannot be had (HTTP ${status})`)
    const services = elementsNamed(parseXml(text), 'service')
    for (const wanted of SERVICES) {
      for (const service of services) {
        if (textOf(service, 'serviceType') !== wanted) continue
        const path = textOf(service, 'controlURL')
        if (path === null || !URL.canParse(path, location.href)) continue
        const control = new URL(path, location.href)
        // A device speaks for itself, not for another machine.
        if (control.hostname !== location.hostname || control.protocol !== 'http:') continue
        return new UpnpGateway(control, wanted, local, timeoutMs)
      }
    }
    throw refused('it has no service that forwards ports')
  }

  async map(port: number, externalPort: number, leaseMs: number, signal: AbortSignal): Promise<Grant> {
    const externalIp = await this.#externalIp(signal)
    let failure: ShallotError | null = null
    for (let i = 0; i < PORTS_TRIED; i++) {
      const candidate = i === 0 ? externalPort : 1024 + ((externalPort + i * PORT_STEP) % 64_000)
      try {
        if (await this.#isAnothers(candidate, port, signal)) throw new UpnpError(CONFLICT)
        return { externalIp, externalPort: candidate, lifetimeMs: await this.#add(port, candidate, leaseMs) }
      } catch (error) {
        if (!(error instanceof UpnpError) || error.upnpCode !== CONFLICT) throw error
        failure = error
      }
    }
    throw failure ?? refused('gave no port')
  }

  async look(port: number, grant: Grant, leaseMs: number, signal: AbortSignal): Promise<Grant | null> {
    const externalIp = await this.#externalIp(signal)
    const client = await this.#clientAt(grant.externalPort, signal)
    if (client !== null && client !== `${this.#local}:${port}`) return null
    if (client === null || externalIp !== grant.externalIp) return this.map(port, grant.externalPort, leaseMs, signal)
    return { ...grant, externalIp }
  }

  async unmap(_port: number, signal: AbortSignal): Promise<void> {
    for (const externalPort of [...this.#claimed]) {
      await this.#call('DeletePortMapping', mappingKey(externalPort), signal).catch((error) => {
        if (!(error instanceof UpnpError) || error.upnpCode !== NO_SUCH_ENTRY) throw error
      })
      this.#claimed.delete(externalPort)
    }
  }

  async #externalIp(signal: AbortSignal): Promise<string> {
    const ip = textOf(await this.#call('GetExternalIPAddress', [], signal), 'NewExternalIPAddress') ?? ''
    if (!isIpText(ip) || ip === '0.0.0.0') throw refused('has no public address: it seems to be offline')
    return ip
  }

  /**
   * Goes on to its end though the node stops: a slow router would otherwise do it after it was told to remove it.
   * @returns how long it holds, ms; null until it is removed
   */
  async #add(port: number, externalPort: number, leaseMs: number): Promise<number | null> {
    this.#claimed.add(externalPort)
    const lease = Math.ceil(leaseMs / 1000)
    const add = (seconds: number): Promise<Element> =>
      this.#call(
        'AddPortMapping',
        [
          ...mappingKey(externalPort),
          ['NewInternalPort', String(port)],
          ['NewInternalClient', this.#local],
          ['NewEnabled', '1'],
          ['NewPortMappingDescription', DESCRIPTION],
          ['NewLeaseDuration', String(seconds)],
        ],
        AbortSignal.timeout(this.#timeoutMs),
      )
    try {
      await add(lease)
      return leaseMs
    } catch (error) {
      if (!(error instanceof UpnpError)) throw error
      if (error.upnpCode === PERMANENT_ONLY) {
        await add(0)
        return null
      }
      // It was refused: nothing of ours is there.
      this.#claimed.delete(externalPort)
      throw error
    }
  }

  async #isAnothers(externalPort: number, port: number, signal: AbortSignal): Promise<boolean> {
    const client = await this.#clientAt(externalPort, signal)
    return client !== null && client !== `${this.#local}:${port}`
  }

  /** "ADDRESS:PORT" that an external port is forwarded to; null when to none, or the router does not say. */
  async #clientAt(externalPort: number, signal: AbortSignal): Promise<string | null> {
    try {
      const entry = await this.#call('GetSpecificPortMappingEntry', mappingKey(externalPort), signal)
      const client = textOf(entry, 'NewInternalClient')
      return client === null || client === '' ? null : `${client}:${textOf(entry, 'NewInternalPort')}`
    } catch (error) {
      if (error instanceof UpnpError) return null
      throw error
    }
  }

  async #call(action: string, args: readonly (readonly [string, string])[], signal: AbortSignal): Promise<Element> {
    const values = args.map(([name, value]) => `<${name}>${escapeXml(value)}</${name}>`).join('')
    const { status, text } = await askByHttp(this.#control, {
      body: `<?xml version="1.0"?>\r\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:${action} xmlns:u="${this.#service}">${values}</u:${action}></s:Body></s:Envelope>`,
      headers: { 'content-type': 'text/xml; charset="utf-8"', soapaction: `"${this.#service}#${action}"` },
      timeoutMs: this.#timeoutMs,
      signal,
    })
    let answer: Element
    try {
      answer = parseXml(text)
    } catch (error) {
      if (error instanceof MalformedError) throw refused(`its answer is not XML (${messageOf(error)})`)
      throw error
    }
    const code = textOf(answer, 'errorCode')
    if (code !== null && /^\d{1,4}$/.test(code)) throw new UpnpError(Number(code))
    const response = elementsNamed(answer, `${action}Response`)[0]
    if (status !== 200 || response === undefined) throw refused(`its answer makes no sense (HTTP ${status})`)
    return response
  }
}

function mappingKey(externalPort: number): [string, string][] {
  return [
    ['NewRemoteHost', ''],
    ['NewExternalPort', String(externalPort)],
    ['NewProtocol', 'TCP'],
  ]
}

/** An error that the router names. */
class UpnpError extends ShallotError {
  readonly upnpCode: number
  constructor(upnpCode: number) {
    super('refused', WORDS[upnpCode] ?? `answered with error ${upnpCode}`, { kind: 'host', retry: 'later' })
    this.upnpCode = upnpCode
  }
}

function refused(why: string): ShallotError {
  return new ShallotError('refused', why, { kind: 'host', retry: 'later' })
}
