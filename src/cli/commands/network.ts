import { readFile, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { messageOf, ShallotError } from '../../base/index.ts'
import {
  isPublisherKey,
  type NetworkRules,
  type NetworkSignature,
  publisherKey,
  ruleDifferences,
  signNetworkFile,
} from '../../directory/index.ts'
import {
  CONFIG_FILE,
  decodePublisher,
  encodePublisher,
  loadNetwork,
  type NodeConfig,
  parseConfig,
  ruleChanges,
  verifyNetwork,
} from '../../node/index.ts'
import { createFile, replaceFile } from '../../store/index.ts'
import { complain, facts, say, sayJson } from '../output.ts'
import { defaultDir } from '../places.ts'
import { systemSuite } from '../system-suite.ts'

/** Everybody may read a network file. */
const NETWORK_FILE_MODE = 0o644

interface JsonOption {
  readonly json?: boolean
}

/** `shallot network keygen FILE` */
export async function keygen(file: string, options: JsonOption): Promise<number> {
  const suite = systemSuite()
  const seed = suite.random(32)
  await createFile(resolve(file), encodePublisher(suite, seed))
  const publisher = publisherKey(suite, seed)
  if (options.json) sayJson({ file: resolve(file), publisher })
  else {
    say(`The publisher's key: ${publisher}`)
    say(`Tell it to everybody, in places that are hard to forge. Its secret is in ${file}: keep a copy, show it to nobody; whoever has it`)
    say('can sign network files that all nodes of this publisher take.')
  }
  return 0
}

/** `shallot network sign FILE --key KEYFILE [--output FILE]` */
export async function sign(file: string, options: JsonOption & { readonly key: string; readonly output?: string }): Promise<number> {
  const suite = systemSuite()
  const text = await textOf(file)
  const rules = loadNetwork(text, file)
  const seed = await secretOf(options.key)
  const publisher = publisherKey(suite, seed)
  // An earlier signature is replaced whatever it is worth: most likely the file was edited since.
  const before = await verifyNetwork(text, file, '').catch(() => null)
  if (before !== null && before.publisher !== publisher && !options.json)
    complain(`shallot: ${file} was signed by ${before.publisher} until now; nodes that hold to that key will refuse it`)
  const now = Date.now()
  if (before?.issued != null && Date.parse(before.issued) > now)
    throw new ShallotError(
      'clock-behind',
      `${file} was signed at ${before.issued}, and this machine's clock is before that: nodes would take the new file for an older one`,
      {
        kind: 'host',
        retry: 'later',
      },
    )
  const signed = signNetworkFile(suite, seed, text, now)
  const to = options.output ?? file
  await replaceFile(resolve(to), signed, NETWORK_FILE_MODE)
  const { issued } = (await verifyNetwork(signed, to, publisher))!
  if (options.json) sayJson({ file: resolve(to), network: rules.name, publisher, issued })
  else say(`${to}: network ${rules.name}, signed by ${publisher} at ${issued}.`)
  return 0
}

/** `shallot network check FILE [--publisher KEY]` */
export async function check(file: string, options: JsonOption & { readonly publisher?: string }): Promise<number> {
  const text = await textOf(file)
  try {
    const rules = loadNetwork(text, file)
    const signature = await verifyNetwork(text, file, publisherOf(options.publisher))
    if (options.json) sayJson({ valid: true, file: resolve(file), network: rules.name, ...signatureFacts(signature) })
    else say(`${file} is right: network ${rules.name}, ${signatureText(signature)}.`)
    return 0
  } catch (error) {
    if (!(error instanceof ShallotError) || error.kind !== 'config') throw error
    if (options.json) sayJson({ valid: false, file: resolve(file), problem: { code: error.code, message: error.message } })
    else complain(error.message)
    return 1
  }
}

/** `shallot network show FILE` */
export async function show(file: string, options: JsonOption): Promise<number> {
  const text = await textOf(file)
  const rules = loadNetwork(text, file)
  const signature = await verifyNetwork(text, file, '')
  const changes = ruleChanges(rules)
  if (options.json) {
    sayJson({ network: rules.name, ...signatureFacts(signature), bootstrap: rules.bootstrap, changes })
    return 0
  }
  say(
    facts([
      ['network', rules.name],
      ['publisher', signature?.publisher ?? 'not signed'],
      ...(signature?.issued ? [['signed at', signature.issued] as const] : []),
      ...(rules.bootstrap.length === 0
        ? [['bootstrap', 'none'] as const]
        : rules.bootstrap.map((address) => ['bootstrap', address] as const)),
      ...(changes.length === 0 ? [['rules', 'all at their defaults'] as const] : []),
      ...changes.map(
        ({ key, value, default: usual }) => ['differs', `${key} = ${JSON.stringify(value)} (usually ${JSON.stringify(usual)})`] as const,
      ),
    ]),
  )
  return 0
}

/** `shallot network update FILE [--dir DIR]`: another edition of the network file a node has. */
export async function update(file: string, options: JsonOption & { readonly dir?: string }): Promise<number> {
  const text = await textOf(file)
  const rules = loadNetwork(text, file)
  const config = await configWith(join(resolve(options.dir ?? defaultDir()), CONFIG_FILE), text, file)
  const before = await presentOf(config.networkFile)
  // A file that was signed once is followed by files of the same publisher, whether the configuration names them or not.
  const signature = await verifyNetwork(text, file, config.node.networkPublisher || (before?.signature?.publisher ?? ''))
  if (before !== null && rules.name !== before.rules.name) {
    const message = `${file} is of the network ${rules.name}, and this node of ${before.rules.name}; make another node for it with \`shallot init\``
    throw refused('network-differs', message)
  }
  const have = before?.signature?.issued ?? null
  const issued = signature?.issued ?? null
  if (have !== null && (issued === null || Date.parse(issued) < Date.parse(have))) {
    const when = issued === null ? 'at no time that it tells' : `at ${issued}`
    throw refused('network-older', `${file} was signed ${when}, before the one that this node has (${have})`)
  }
  const changes = before === null ? [] : differences(before.rules, rules)
  const isSame = text === before?.text
  if (!isSame) await replaceFile(config.networkFile, text, NETWORK_FILE_MODE)
  if (options.json) {
    sayJson({ file: config.networkFile, changed: !isSame, network: rules.name, ...signatureFacts(signature), changes })
    return 0
  }
  if (isSame) {
    say(`${config.networkFile} is the same already.`)
    return 0
  }
  say(`${config.networkFile} is replaced: network ${rules.name}, ${signatureText(signature)}.`)
  for (const line of changes) say(`  ${line}`)
  say('A node that runs takes it when it starts again.')
  return 0
}

/** The node's configuration as it would be with this text as its network file. */
async function configWith(configFile: string, text: string, file: string): Promise<NodeConfig> {
  const config = (await bytesOf(configFile, 'the configuration')).toString('utf8')
  let name = ''
  const read = async (path: string): Promise<string> => {
    if (name !== '') return textOf(path)
    name = path
    return text
  }
  return parseConfig(config, configFile, read).catch((error) => {
    if (!(error instanceof ShallotError) || name === '') throw error
    throw refused(error.code, error.message.replaceAll(name, file))
  })
}

/** The network file that the node has; null where there is none that is right: then any right one is better. */
async function presentOf(file: string): Promise<{ text: string; rules: NetworkRules; signature: NetworkSignature | null } | null> {
  try {
    const text = await textOf(file)
    return { text, rules: loadNetwork(text, file), signature: await verifyNetwork(text, file, '') }
  } catch {
    return null
  }
}

/** What differs between two editions, a line each. */
function differences(before: NetworkRules, after: NetworkRules): string[] {
  const of = (rules: NetworkRules) =>
    new Map(ruleDifferences(rules).map(({ key, value, normal }) => [key, { value: JSON.stringify(value), normal: JSON.stringify(normal) }]))
  const [old, now] = [of(before), of(after)]
  const lines: string[] = []
  for (const address of after.bootstrap) if (!before.bootstrap.includes(address)) lines.push(`+ bootstrap ${address}`)
  for (const address of before.bootstrap) if (!after.bootstrap.includes(address)) lines.push(`- bootstrap ${address}`)
  for (const key of new Set([...old.keys(), ...now.keys()])) {
    const [was, is] = [old.get(key)?.value ?? now.get(key)!.normal, now.get(key)?.value ?? old.get(key)!.normal]
    if (was !== is) lines.push(`~ ${key} ${was} -> ${is}`)
  }
  return lines
}

/** The key of --publisher, '' when it is not given. @throws ShallotError 'usage' */
export function publisherOf(text: string | undefined): string {
  if (text === undefined || isPublisherKey(text)) return text ?? ''
  throw new ShallotError('usage', `${JSON.stringify(text)} is not the key of a publisher: it has 64 digits, 0-9 and a-f`, {
    kind: 'usage',
    retry: 'never',
  })
}

/** "signed by KEY at TIME" */
export function signatureText(signature: NetworkSignature | null): string {
  if (signature === null) return 'not signed'
  return `signed by ${signature.publisher}${signature.issued === null ? '' : ` at ${signature.issued}`}`
}

function signatureFacts(signature: NetworkSignature | null): { publisher: string | null; issued: string | null } {
  return { publisher: signature?.publisher ?? null, issued: signature?.issued ?? null }
}

async function textOf(file: string): Promise<string> {
  return (await bytesOf(file, 'the network file')).toString('utf8')
}

async function secretOf(file: string): Promise<Uint8Array> {
  const { mode } = await stat(file).catch(() => ({ mode: 0 }))
  if ((mode & 0o077) !== 0)
    throw refused(
      'key-not-private',
      `${file} can be read or written by other users of this machine: whoever has it can sign for you. Take that away (chmod 600 ${file}), and think whether a new key is due`,
    )
  try {
    return decodePublisher(systemSuite(), await bytesOf(file, "the publisher's key"))
  } catch (error) {
    if (error instanceof ShallotError && error.code !== 'malformed') throw error
    throw refused('publisher-unreadable', `${file}: ${messageOf(error)}`)
  }
}

async function bytesOf(file: string, what: string): Promise<Buffer> {
  return readFile(file).catch((error) => {
    throw new ShallotError('config-unreadable', `${what}, ${file}, cannot be read: ${messageOf(error)}`, {
      kind: 'config',
      retry: 'never',
      cause: error,
    })
  })
}

function refused(code: string, message: string): ShallotError {
  return new ShallotError(code, message, { kind: 'config', retry: 'never' })
}
