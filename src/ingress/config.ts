import { z } from 'zod'
import { dnsConfig } from './dns/config.ts'
import { isolateBy } from './isolation.ts'
import { type ListenAddress, listenText, parseListen } from './listen-address.ts'
import { tunConfig } from './tun/config.ts'

export { tunKeys } from './tun/config.ts'

const credentials = z
  .array(
    z.strictObject({
      user: z.string().min(1).max(255).describe('User name, at most 255 bytes.'),
      password: z.string().min(1).max(255).describe('Password, at most 255 bytes.'),
    }),
  )
  .default([])

const listenHelp = 'Addresses and ports to listen on; an empty list switches it off. Anything but loopback needs `credentials`.'
const credentialsHelp =
  'Who may use it. Always asked for on addresses other than loopback; on loopback only with `require_credentials`, else any are taken and only isolate.'
const requireHelp = 'Ask for the credentials on loopback too.'
const isolateHelp =
  'What keeps streams on different circuits: any of "credentials", "client-address", "destination-address", "destination-port". Different listeners never share.'

/** `[ingress.socks]` */
export const socksConfig = z
  .strictObject({
    listen: z.array(listenText).default(['127.0.0.1:9250']).describe(listenHelp),
    credentials: credentials.describe(credentialsHelp),
    requireCredentials: z.boolean().default(false).describe(requireHelp),
    isolateBy: isolateBy.describe(isolateHelp),
    maxConnections: z.int().min(1).max(65_535).default(1024).describe('Connections open at once; further ones are refused.'),
    maxAssociations: z.int().min(0).max(1024).default(64).describe('UDP associations open at once.'),
    handshakeTimeoutMs: z.int().min(100).default(30_000).describe('How long a program may take to say what it wants.'),
    connectTimeoutMs: z.int().min(100).default(120_000).describe('How long opening a stream may take, retries on other circuits included.'),
  })
  .superRefine(guardListening)
export type SocksConfig = z.output<typeof socksConfig>

/** `[ingress.http]` */
export const httpConfig = z
  .strictObject({
    listen: z.array(listenText).default(['127.0.0.1:9280']).describe(listenHelp),
    credentials: credentials.describe(credentialsHelp),
    requireCredentials: z.boolean().default(false).describe(requireHelp),
    isolateBy: isolateBy.describe(isolateHelp),
    maxConnections: z.int().min(1).max(65_535).default(1024).describe('Connections open at once; further ones get 503.'),
    maxHeaderBytes: z.int().min(1024).max(1_048_576).default(65_536).describe('Longest head of a request or an answer, bytes.'),
    maxBodyBytes: z.int().min(0).default(0).describe('Longest body of a plain request, bytes; 0 is no limit. CONNECT is not counted.'),
    headersTimeoutMs: z.int().min(100).default(30_000).describe('How long the head of a request may take.'),
    connectTimeoutMs: z.int().min(100).default(120_000).describe('How long opening a stream may take, retries on other circuits included.'),
    idleTimeoutMs: z.int().min(1000).default(600_000).describe('How long a plain request may stand still.'),
    keepAliveTimeoutMs: z.int().min(100).default(60_000).describe('How long an idle connection of an application is kept.'),
    upstreamIdleTimeoutMs: z
      .int()
      .min(100)
      .default(15_000)
      .describe('How long an idle stream to a server is kept for the next plain request.'),
    maxIdleUpstream: z.int().min(0).max(1024).default(32).describe('Idle streams to servers kept at once.'),
  })
  .superRefine(guardListening)
export type HttpConfig = z.output<typeof httpConfig>

interface Listening {
  readonly listen: readonly string[]
  readonly credentials: readonly unknown[]
  readonly requireCredentials: boolean
}

function guardListening(config: Listening, context: z.core.$RefinementCtx<unknown>): void {
  if (config.credentials.length > 0) return
  config.listen.forEach((text, i) => {
    let listen: ListenAddress
    try {
      listen = parseListen(text)
    } catch {
      return // said already
    }
    if (!listen.loopback) {
      context.addIssue({
        code: 'custom',
        path: ['listen', i],
        message: `${text} is not a loopback address: set \`credentials\` before others can reach this port, or listen on 127.0.0.1`,
      })
    }
  })
  if (config.requireCredentials) {
    context.addIssue({ code: 'custom', path: ['requireCredentials'], message: 'needs at least one entry in `credentials`' })
  }
}

/** `[ingress]`: a section for each way in. */
export const ingressConfig = z.strictObject({
  socks: socksConfig.prefault({}).describe('The SOCKS5 proxy of a client.'),
  http: httpConfig.prefault({}).describe('The HTTP proxy of a client.'),
  dns: dnsConfig.prefault({}).describe('Questions of programs to the DNS, answered through circuits.'),
  tun: tunConfig.prefault({}).describe('A TUN device that takes the traffic of the whole machine, or of one program.'),
})
export type IngressConfig = z.output<typeof ingressConfig>
