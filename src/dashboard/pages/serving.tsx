import type { JSX } from 'preact'
import type { NatRelayStats, NodeStatus, OnionKeyFacts, RelayingFacts, StunStats } from '../../control/api-types.ts'
import { bytes, duration, moment, number } from '../format.ts'
import { status } from '../node-state.ts'
import { Badge, Card, Figure, Figures, Meter } from '../parts/card.tsx'
import { DrainCard } from '../parts/drain-card.tsx'
import { CountMeter, ExitCards, Reasons } from '../parts/exit-cards.tsx'
import { ServedFigures, ServedPlots } from '../parts/served.tsx'
import { Empty, Failed, Loading } from '../parts/states.tsx'
import { Warnings } from '../parts/warnings.tsx'
import { useResource } from '../resource.ts'
import { useNow } from '../use-now.ts'

/** What this node does for others, for its operator. */
export function ServingPage(): JSX.Element {
  const { data, error } = useResource(status)
  if (data === undefined)
    return error === null ? <Loading what="the node" lines={6} /> : <Failed error={error} again={() => void status.reload()} />
  if (data.roles.every((role) => role === 'client')) {
    return (
      <Card title="This node serves nobody else">
        <Empty icon="serving" title="It is a client only">
          <p>
            With <code>node.roles = ["client", "guard", "middle"]</code> it carries circuits of others too: a port must be reachable, and
            some bandwidth is needed. The page Reachability says what it can serve from where it stands.
          </p>
        </Empty>
      </Card>
    )
  }
  const { relaying, exit } = data
  const others = (
    <>
      {data.natRelay === null ? null : <NatRelayCard facts={data.natRelay} />}
      {data.stun === null ? null : <StunCard facts={data.stun} />}
    </>
  )
  return (
    <>
      <Warnings warnings={data.warnings} />
      <ServedFigures node={data} />
      <ServedPlots node={data} />
      <div class="columns columns-even">
        {relaying === null ? (
          <>
            <MemoryCard node={data} />
            {others}
          </>
        ) : (
          <>
            <div class="stack">
              <RelayingCard facts={relaying} />
              {data.onionKey === null ? null : <OnionKeyCard facts={data.onionKey} />}
            </div>
            <div class="stack">
              <MemoryCard node={data} />
              {others}
              <DrainCard node={data} />
            </div>
          </>
        )}
      </div>
      {exit === null ? null : <ExitCards facts={exit} />}
    </>
  )
}

function MemoryCard({ node }: { readonly node: NodeStatus }): JSX.Element {
  const { memory, relaying } = node
  return (
    <Card title="Memory against limits">
      {memory.limitBytes === null ? (
        <p>
          {bytes(memory.rssBytes)} resident. <span class="muted">The system sets no limit.</span>
        </p>
      ) : (
        <Meter
          name="Process"
          used={memory.rssBytes}
          limit={memory.limitBytes}
          text={`${bytes(memory.rssBytes)} of ${bytes(memory.limitBytes)}`}
        />
      )}
      {relaying === null ? null : (
        <Meter
          name="Cells that wait"
          used={relaying.budget.usedBytes}
          limit={relaying.budget.limitBytes}
          text={`${bytes(relaying.budget.usedBytes)} of ${bytes(relaying.budget.limitBytes)}`}
        />
      )}
      <dl class="facts">
        <div>
          <dt>Heap</dt>
          <dd>{bytes(memory.heapBytes)}</dd>
        </div>
        <div>
          <dt>Outside the heap</dt>
          <dd>{bytes(memory.externalBytes)}</dd>
        </div>
        <div>
          <dt>Links</dt>
          <dd>{number(node.links)}</dd>
        </div>
      </dl>
    </Card>
  )
}

function RelayingCard({ facts }: { readonly facts: RelayingFacts }): JSX.Element {
  return (
    <Card title="Circuits carried">
      <CountMeter name="Open" used={facts.circuitsOpen} limit={facts.circuitsLimit} />
      <Reasons title="Refused" counts={facts.refused} />
      <Reasons title="Ended" counts={facts.closed} />
    </Card>
  )
}

function OnionKeyCard({ facts }: { readonly facts: OnionKeyFacts }): JSX.Element {
  const now = useNow()
  return (
    <Card title="Onion key" aside={<Badge tone="good">Turns by itself</Badge>}>
      <dl class="facts">
        <div>
          <dt>In use since</dt>
          <dd>{moment(facts.since)}</dd>
        </div>
        <div>
          <dt>Next one</dt>
          <dd>
            {moment(facts.rotatesAt)}, in {duration(facts.rotatesAt - now)}
          </dd>
        </div>
        <div>
          <dt>The one before</dt>
          <dd>{facts.previousUntil === null ? 'is gone' : `is taken until ${moment(facts.previousUntil)}`}</dd>
        </div>
      </dl>
    </Card>
  )
}

function NatRelayCard({ facts }: { readonly facts: NatRelayStats }): JSX.Element {
  return (
    <Card title="NAT relay">
      <Figures>
        <Figure name="Reservations" value={number(facts.reservations.open)} note={`${number(facts.reservations.granted)} granted`} />
        <Figure name="Connections" value={number(facts.connections.open)} note={`${number(facts.connections.total)} in all`} />
        <Figure name="Carried" value={bytes(facts.bytes.fromReserved + facts.bytes.toReserved)} />
      </Figures>
      <Reasons title="Reservations refused" counts={facts.reservations.refused} />
    </Card>
  )
}

/** What this node tells others of the address they come from. */
function StunCard({ facts }: { readonly facts: StunStats }): JSX.Element {
  const refused = facts.droppedMalformed + facts.droppedOverRate + facts.droppedOverBytes + facts.droppedUnable + facts.refusals
  return (
    <Card title="Address questions (STUN)">
      <dl class="facts">
        <div>
          <dt>Asked</dt>
          <dd>{number(facts.requests)}</dd>
        </div>
        <div>
          <dt>Answered</dt>
          <dd>{number(facts.answers)}</dd>
        </div>
        <div>
          <dt>Refused or dropped</dt>
          <dd>{number(refused)}</dd>
        </div>
      </dl>
    </Card>
  )
}
