import type { JSX } from 'preact'
import type { ExitFacts, ExitPacketFacts } from '../../control/api-types.ts'
import { bytes, number, plural, words } from '../format.ts'
import { Bars, Card, Meter } from './card.tsx'

/** What an exit does: streams and UDP, names, and raw packets where it serves them. */
export function ExitCards({ facts }: { readonly facts: ExitFacts }): JSX.Element {
  const { packets, packetLeasesOpen, limits } = facts
  const always = (
    <>
      <TrafficCard facts={facts} />
      <NamesCard facts={facts.dns} />
    </>
  )
  return (
    <div class="columns columns-even">
      {packets === null ? (
        always
      ) : (
        <>
          <div class="stack">{always}</div>
          <PacketsCard facts={packets} leases={packetLeasesOpen} limit={limits.packetLeases} />
        </>
      )}
    </div>
  )
}

function TrafficCard({ facts }: { readonly facts: ExitFacts }): JSX.Element {
  return (
    <Card title="Exit: TCP and UDP">
      <CountMeter name="TCP streams open" used={facts.streamsOpen} limit={facts.limits.streams} />
      <CountMeter name="UDP associations open" used={facts.associationsOpen} limit={facts.limits.associations} />
      <dl class="facts">
        <div>
          <dt>From servers</dt>
          <dd>{bytes(facts.bytesFromServers)}</dd>
        </div>
        <div>
          <dt>To servers</dt>
          <dd>{bytes(facts.bytesToServers)}</dd>
        </div>
      </dl>
      <Reasons title="Refused" counts={facts.refused} />
    </Card>
  )
}

/** Why a raw packet went no further, in plain words. */
const DROPPED: Readonly<Record<string, string>> = {
  policy: 'Forbidden by the policy',
  rate: 'More than the rate allows',
  malformed: 'Not a sound packet',
  source: 'Not from the client’s address',
  protocol: 'A protocol that is not carried',
  fragment: 'A fragment that can’t be judged',
  limit: 'Too much open or waiting',
  memory: 'The buffers were full',
  queue: 'Its queue was full',
  'hop-limit': 'Its hop limit was used up',
  'no-lease': 'Came for a client that has left',
}

function PacketsCard(props: { readonly facts: ExitPacketFacts; readonly leases: number | null; readonly limit: number }): JSX.Element {
  const { facts, leases, limit } = props
  const { stack } = facts
  return (
    <Card title="Exit: raw packets">
      {leases === null ? null : <CountMeter name="Packet leases open" used={leases} limit={limit} />}
      {stack === null ? null : (
        <Meter
          name="Buffers"
          used={stack.bufferBytes}
          limit={stack.bufferLimitBytes}
          text={`${bytes(stack.bufferBytes)} of ${bytes(stack.bufferLimitBytes)}`}
        />
      )}
      <dl class="facts">
        <div>
          <dt>From clients</dt>
          <dd>{amount(facts.packetsFromClients, facts.bytesFromClients)}</dd>
        </div>
        <div>
          <dt>To clients</dt>
          <dd>{amount(facts.packetsToClients, facts.bytesToClients)}</dd>
        </div>
        {stack === null ? null : (
          <div>
            <dt>Sent to clients again</dt>
            <dd>{plural(stack.retransmissions, 'TCP segment')}</dd>
          </div>
        )}
      </dl>
      <h3>Open to servers</h3>
      {stack === null ? (
        <p class="muted">The kernel has these connections; the node doesn’t count them.</p>
      ) : (
        <dl class="facts">
          <div>
            <dt>TCP connections</dt>
            <dd>{number(stack.tcpConnections)}</dd>
          </div>
          <div>
            <dt>UDP ports</dt>
            <dd>{number(stack.udpPorts)}</dd>
          </div>
          <div>
            <dt>Pings (ICMP) unanswered</dt>
            <dd>{number(stack.echoes)}</dd>
          </div>
        </dl>
      )}
      <Reasons title="Packets dropped" counts={facts.dropped} names={DROPPED} />
    </Card>
  )
}

const UNANSWERED: Readonly<Record<string, string>> = { refused: 'Refused by rule', failed: 'The resolver failed' }

function NamesCard({ facts }: { readonly facts: ExitFacts['dns'] }): JSX.Element {
  const { questions, remembered, refused, failed } = facts
  const share = questions === 0 ? '' : ` (${Math.round((100 * remembered) / questions)} %)`
  return (
    <Card title="Exit: names (DNS)">
      <dl class="facts">
        <div>
          <dt>Questions</dt>
          <dd>{number(questions)}</dd>
        </div>
        <div>
          <dt>Answered from memory</dt>
          <dd>
            {number(remembered)}
            {share}
          </dd>
        </div>
      </dl>
      <Reasons title="Unanswered" counts={{ refused, failed }} names={UNANSWERED} />
    </Card>
  )
}

/** How many there are of as many as there may be. */
export function CountMeter(props: { readonly name: string; readonly used: number; readonly limit: number }): JSX.Element {
  return <Meter {...props} text={`${number(props.used)} of ${number(props.limit)}`} />
}

/** Counts by reason as bars, the most frequent first. @param names plain words for reasons; others are shown as they are */
export function Reasons(props: {
  readonly title: string
  readonly counts: Readonly<Record<string, number>>
  readonly names?: Readonly<Record<string, string>>
}): JSX.Element {
  const { title, counts, names = {} } = props
  const rows = Object.entries(counts).filter(([, count]) => count > 0)
  return (
    <>
      <h3>{title}</h3>
      {rows.length === 0 ? (
        <p class="muted">None.</p>
      ) : (
        <Bars
          label={`${title}, by reason`}
          rows={rows
            .sort((a, b) => b[1] - a[1])
            .map(([key, value]) => ({ key, name: names[key] ?? sentence(words(key)), value, text: number(value) }))}
        />
      )}
    </>
  )
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`
}

/** The unit stays with its number where a phone breaks the line. */
function amount(count: number, size: number): string {
  return `${plural(count, 'packet')}, ${bytes(size).replace(' ', '\u00a0')}`
}
