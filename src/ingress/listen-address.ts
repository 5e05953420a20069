import { z } from 'zod'
import { type Host, type IpAddress, messageOf, networkContains, parseHostPort, parseNetwork } from '../base/index.ts'

/** Where a listener listens. Port 0: any free one. */
export interface ListenAddress {
  readonly ip: IpAddress
  /** Canonical. */
  readonly host: string
  readonly port: number
  readonly loopback: boolean
}

const loopbackNetworks = [parseNetwork('127.0.0.0/8'), parseNetwork('::1/128')]

/** `127.0.0.1:9250` or `[::1]:9250`: an address, never a name. @throws MalformedError, or Error with the text of what is wrong */
export function parseListen(text: string): ListenAddress {
  const { host, port } = parseHostPort(text)
  const ip = ipOf(host)
  return { ip, host: host.text, port, loopback: loopbackNetworks.some((network) => networkContains(network, ip)) }
}

function ipOf(host: Host): IpAddress {
  if (host.type !== 'ip') throw new Error('must be an IP address and a port, such as 127.0.0.1:9250 or [::1]:9250')
  return host.ip
}

/** An address to listen on, as text. */
export const listenText = z.string().superRefine((text, context) => {
  try {
    parseListen(text)
  } catch (error) {
    context.addIssue({ code: 'custom', message: `${messageOf(error)} (wanted: ADDRESS:PORT, such as 127.0.0.1:9250 or [::1]:9250)` })
  }
})
