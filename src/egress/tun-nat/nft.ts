import { spawn } from 'node:child_process'
import { tunNatError } from './errors.ts'

/** How long the nft program may take. */
const NFT_MS = 20_000
/** A few counters are some kilobytes. */
const MOST_ANSWER_CHARS = 200_000

/**
 * Gives a ruleset to the system's `nft` program, as one transaction: all of it holds afterwards, or nothing has changed.
 * @throws ShallotError 'exit-tun-no-nft' | 'exit-tun-not-permitted' | 'exit-tun-unavailable'
 */
export async function applyRuleset(text: string, program = 'nft'): Promise<void> {
  await runNft(program, ['-f', '-'], text)
}

/**
 * Packets that the named counters of a table have seen, by the counter.
 * @throws ShallotError as `applyRuleset`
 */
export async function readCounters(table: string, program = 'nft'): Promise<Record<string, number>> {
  const { nftables = [] } = JSON.parse(await runNft(program, ['--json', 'list', 'counters', 'table', 'inet', table], '')) as {
    readonly nftables?: readonly { readonly counter?: { readonly name: string; readonly packets: number } }[]
  }
  return Object.fromEntries(nftables.flatMap(({ counter }) => (counter ? [[counter.name, counter.packets]] : [])))
}

/** What it wrote to standard output. */
function runNft(program: string, args: readonly string[], input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` }
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env, timeout: NFT_MS })
    let said = ''
    let answer = ''
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      if (answer.length < MOST_ANSWER_CHARS) answer += part
    })
    child.stderr.setEncoding('utf8').on('data', (part: string) => {
      said = (said + part).slice(0, 2000)
    })
    child.on('error', (error) =>
      reject(
        tunNatError(
          'exit-tun-no-nft',
          `the program nft, which makes the NAT, can't be run (${(error as NodeJS.ErrnoException).code}): install nftables`,
          'never',
          error,
        ),
      ),
    )
    child.on('close', (code) => {
      if (code === 0) resolve(answer)
      else reject(refusalOf(said))
    })
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}

function refusalOf(said: string) {
  const why = said.split('\n')[0] || 'the program nft took too long'
  if (/Operation not permitted|must be root/.test(said))
    return tunNatError('exit-tun-not-permitted', `nftables rules can't be made (${why}): they need CAP_NET_ADMIN, see exit/README.md`)
  if (/Protocol not supported|cache initialization failed|Unable to initialize/.test(said))
    return tunNatError('exit-tun-no-nft', `this kernel has no nftables (${why}): load nf_tables (modprobe nf_tables)`)
  return tunNatError('exit-tun-unavailable', `nft refused the rules (${why})`)
}
