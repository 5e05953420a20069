import type { JSX } from 'preact'
import type { NatFacts } from '../../control/api-types.ts'
import { Badge, Card } from './card.tsx'

/** How others reach the node: a colour, a few words, and a sentence. */
export const REACHABILITY: Readonly<Record<NatFacts['state'], readonly [tone: 'good' | 'busy' | 'bad', title: string, text: string]>> = {
  unknown: ['busy', 'Finding out', 'The node asks others how they see it. That takes some seconds.'],
  public: ['good', 'Reachable', 'Anybody can connect to this node directly.'],
  mapped: ['good', 'Reachable through the router', 'The router passes connections on to this node.'],
  punchable: ['busy', 'Reachable by hole punching', 'A NAT is in the way, of a kind that two nodes can open from both sides at once.'],
  relayed: [
    'bad',
    'Reachable through a relay only',
    'Connections from outside do not come in. Others reach this node through a NAT relay.',
  ],
}

/** The same in short, for the overview of a node that serves others. */
export function ReachabilityCard({ state }: { readonly state: NatFacts['state'] }): JSX.Element {
  const [tone, title, text] = REACHABILITY[state]
  return (
    <Card title="Reachability" aside={<Badge tone={tone}>{title}</Badge>}>
      <p>{text}</p>
      <p>
        <a href="#/reachability">How it was found out</a>
      </p>
    </Card>
  )
}
