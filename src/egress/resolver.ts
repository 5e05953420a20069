import { promises as dns } from 'node:dns'
import { formatIp, type IpAddress, isIpText, messageOf, parseIp } from '../base/index.ts'
import { ExitRefusal, endReasonOf } from '../relaying/index.ts'
import type { ExitConfig } from './config.ts'
import { type Found, LookupCache, NotFound } from './lookup-cache.ts'

/** Names to addresses and back, for an exit. Both reject with the signal's reason as soon as that aborts. */
export interface Resolver {
  /** Every address of a name (canonical text), both families, in the order of the answer; at least one. @throws ExitRefusal */
  addresses(name: string, signal: AbortSignal): Promise<Found<readonly IpAddress[]>>
  /** The names of an address; at least one. @throws ExitRefusal */
  names(address: IpAddress, signal: AbortSignal): Promise<Found<readonly string[]>>
}

type ResolverConfig = Pick<
  ExitConfig,
  | 'resolvers'
  | 'resolveTimeoutMs'
  | 'maxLookups'
  | 'maxQueuedLookups'
  | 'dnsCacheEntries'
  | 'dnsMinTtlSeconds'
  | 'dnsMaxTtlSeconds'
  | 'dnsSystemTtlSeconds'
  | 'dnsNegativeTtlSeconds'
>

/** Where names are really asked. Throws the errors of node:dns. */
export interface NameSource {
  readonly addresses: (name: string) => Promise<Found<readonly string[]>>
  readonly names: (address: string) => Promise<readonly string[]>
  /** Questions it bears at once. */
  readonly maxRunning: number
}

/** A resolver with cache, sharing and limits over the system's resolver, or over the configured servers. @param source for tests */
export function createResolver(options: {
  readonly config: ResolverConfig
  readonly now: () => number
  readonly source?: NameSource
}): Resolver {
  const { config, now } = options
  const source = options.source ?? (config.resolvers.length === 0 ? systemSource(config) : serverSource(config))
  const limits = {
    maxEntries: config.dnsCacheEntries,
    maxRunning: Math.min(config.maxLookups, source.maxRunning),
    maxQueued: config.maxQueuedLookups,
    minTtlSeconds: config.dnsMinTtlSeconds,
    maxTtlSeconds: Math.max(config.dnsMinTtlSeconds, config.dnsMaxTtlSeconds),
    negativeTtlSeconds: config.dnsNegativeTtlSeconds,
    now,
  }
  const forward = new LookupCache<readonly IpAddress[]>(limits)
  const backward = new LookupCache<readonly string[]>(limits)
  return {
    async addresses(name, signal) {
      const special = specialName(name)
      if (special) return special
      return forward.get(name, () => lookUp(source, name), config.resolveTimeoutMs, signal)
    },
    names(address, signal) {
      const text = formatIp(address)
      return backward.get(text, () => lookUpNames(source, text, config.dnsSystemTtlSeconds), config.resolveTimeoutMs, signal)
    },
  }
}

/** Names that are never asked for: RFC 6761, RFC 6762 (the exit's own link), RFC 7686, RFC 9476. */
const refusedDomains = ['local', 'onion', 'invalid', 'alt']
const loopback: readonly IpAddress[] = [parseIp('127.0.0.1'), parseIp('::1')]

function specialName(name: string): Found<readonly IpAddress[]> | null {
  const last = name.slice(name.lastIndexOf('.') + 1)
  // RFC 6761 §6.3: loopback, without asking. Policy decides what comes of it.
  if (last === 'localhost') return { value: loopback, ttlSeconds: 60 }
  if (refusedDomains.includes(last)) throw new NotFound(`names under .${last} are not resolved`)
  return null
}

async function lookUp(source: NameSource, name: string): Promise<Found<readonly IpAddress[]>> {
  const found = await source.addresses(name).catch((error: unknown) => {
    throw refusalOf(error)
  })
  // Addresses with a zone are of the exit's own link: nobody's business.
  const addresses = found.value.filter(isIpText).map(parseIp)
  if (addresses.length === 0) throw new NotFound('the name has no address')
  return { value: addresses, ttlSeconds: found.ttlSeconds }
}

async function lookUpNames(source: NameSource, address: string, ttlSeconds: number): Promise<Found<readonly string[]>> {
  const names = await source.names(address).catch((error: unknown) => {
    throw refusalOf(error)
  })
  if (names.length === 0) throw new NotFound('the address has no name')
  return { value: names, ttlSeconds }
}

function refusalOf(error: unknown): ExitRefusal {
  if (error instanceof ExitRefusal) return error
  const code = error instanceof Error && 'code' in error ? error.code : ''
  if (code === 'ENOTFOUND' || code === 'ENODATA') return new NotFound('there is no such name', error)
  return new ExitRefusal(endReasonOf(error), `resolving failed: ${messageOf(error)}`, error)
}

/** Threads of libuv's pool, which files and other work need too: one is always left to them. */
function poolThreads(): number {
  const set = Number(process.env.UV_THREADPOOL_SIZE)
  return Number.isInteger(set) && set > 0 ? set : 4
}

/** getaddrinfo(3): /etc/hosts and whatever this machine is set to. A call can't be taken back, so it holds its place until it returns. */
function systemSource(config: ResolverConfig): NameSource {
  const reverse = new dns.Resolver({ timeout: config.resolveTimeoutMs, tries: 1 })
  return {
    maxRunning: Math.max(1, poolThreads() - 1),
    addresses: async (name) => {
      const found = await dns.lookup(name, { all: true, order: 'verbatim' })
      return { value: found.map(({ address }) => address), ttlSeconds: config.dnsSystemTtlSeconds }
    },
    names: (address) => reverse.reverse(address),
  }
}

function serverSource(config: ResolverConfig): NameSource {
  const resolver = new dns.Resolver({ timeout: Math.max(100, Math.floor(config.resolveTimeoutMs / 3)), tries: 2 })
  resolver.setServers(config.resolvers)
  return {
    maxRunning: config.maxLookups,
    addresses: async (name) => {
      const asked = await Promise.allSettled([resolver.resolve4(name, { ttl: true }), resolver.resolve6(name, { ttl: true })])
      const records = asked.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
      if (records.length === 0) throw worstOf(asked)
      return { value: records.map(({ address }) => address), ttlSeconds: Math.min(...records.map(({ ttl }) => ttl)) }
    },
    names: (address) => resolver.reverse(address),
  }
}

/** Both families failed: only when both are sure that there is nothing, there is nothing. */
function worstOf(asked: readonly PromiseSettledResult<unknown>[]): unknown {
  const errors = asked.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason as unknown] : []))
  return errors.find((error) => !(refusalOf(error) instanceof NotFound)) ?? errors[0] ?? new NotFound('the name has no address')
}
