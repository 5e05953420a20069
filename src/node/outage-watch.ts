import type { FailedAt, Outage } from '../client/index.ts'
import { explainChoices } from '../path/index.ts'
import { type Clocks, wallTime } from './facts.ts'
import type { OutageCode, OutageFacts } from './node-control.ts'
import type { Warnings } from './warnings.ts'

/** One warning, whoever is missing. */
const KEY = 'outage'
/** When news of the relays is asked for while nothing behind the guard is reached: those that are back may have said so. Doubled each time. */
const REFRESH_MS = { first: 5_000, most: 30_000 } as const

export interface OutageWatchModules {
  readonly clocks: Clocks
  readonly warnings: Warnings
  /** What the pool says of it. */
  readonly outage: () => Outage | null
  /** Whether this machine has an address to go out from. */
  readonly hasNetwork: () => boolean
  /** Asks for news of the relays. */
  readonly refresh: () => void
}

/** Says aloud when nothing can be reached, who is missing and what to do; and when it is over. */
export class OutageWatch {
  readonly #m: OutageWatchModules
  #facts: OutageFacts | null = null
  #refreshAt = 0
  #refreshes = 0

  constructor(modules: OutageWatchModules) {
    this.#m = modules
  }

  /** As of the last look. */
  get facts(): OutageFacts | null {
    return this.#facts
  }

  /** One look; to be called once a second and whenever a circuit was built. */
  look(): void {
    const { clocks, warnings, outage, hasNetwork, refresh } = this.#m
    const now = outage()
    if (now === null) {
      this.#facts = null
      this.#refreshAt = 0
      this.#refreshes = 0
      warnings.over(KEY)
      return
    }
    const code = codeOf(now.at, hasNetwork)
    this.#facts = { code, ...SAYS[code], ...choicesOf(now), since: wallTime(clocks, now.since) }
    warnings.raise(code, `${this.#facts.message}; ${this.#facts.advice}`, KEY)
    if (!BEHIND.includes(now.at) || clocks.now() < this.#refreshAt) return
    this.#refreshAt = clocks.now() + Math.min(REFRESH_MS.most, REFRESH_MS.first * 2 ** Math.min(this.#refreshes++, 16))
    refresh()
  }
}

/** Where the guard answers, and may know more. */
const BEHIND: readonly FailedAt[] = ['middle', 'exit', 'no-exit']

const CODES: Readonly<Record<FailedAt, OutageCode>> = {
  guard: 'guards-unreachable',
  middle: 'relays-unreachable',
  exit: 'exits-unreachable',
  'no-exit': 'no-exit-known',
  'no-relay': 'no-relay-known',
  ports: 'no-exit-for-port',
  wishes: 'nothing-allowed',
}

function codeOf(at: FailedAt, hasNetwork: () => boolean): OutageCode {
  return at === 'guard' && !hasNetwork() ? 'no-network' : CODES[at]
}

/** Which of the choices leave no path, where it is known. */
function choicesOf({ without }: Outage): Pick<OutageFacts, 'message' | 'advice'> | null {
  const choices = without === undefined ? null : explainChoices(without)
  if (choices === null) return null
  return { message: `nothing can be reached: ${choices.message}`, advice: `${choices.advice}: in the dashboard, or with \`shallot set\`` }
}

const SAYS: Readonly<Record<OutageCode, { readonly message: string; readonly advice: string }>> = {
  'no-network': { message: 'nothing can be reached: this machine has no network', advice: 'connect it; the node goes on by itself' },
  'guards-unreachable': {
    message: 'nothing can be reached: no guard answers',
    advice: 'see that this machine is online and that its firewall and network let outgoing TCP pass to any port; the node goes on trying',
  },
  'relays-unreachable': {
    message: 'nothing can be reached: the guard answers, and none of the relays behind it can be reached',
    advice: 'most of the network may be down, or cut off from the guard; the node goes on trying',
  },
  'exits-unreachable': {
    message: 'nothing can be reached: exits are known, and none of those that were tried answers',
    advice:
      'they are down, or cut off from the other relays: nothing is wrong here; the node goes on trying, and asks whether there are others',
  },
  'no-exit-known': {
    message: 'nothing can be reached: no exit is known that can be used',
    advice: 'the network has none now, or all are leaving; the node goes on asking',
  },
  'no-relay-known': {
    message: 'nothing can be reached: too few relays are known for a path of three that are unlike',
    advice: 'the node goes on asking; if it stays so, the network is too small',
  },
  'no-exit-for-port': {
    message: 'nothing can be reached: no exit lets through the ports that were asked for',
    advice: '`shallot relays --role exit` shows what each lets through',
  },
  'nothing-allowed': {
    message: 'nothing can be reached: the choices of exits, countries, nodes and networks in the settings leave no path',
    advice: 'allow more, in the dashboard or in the section path of the configuration',
  },
}
