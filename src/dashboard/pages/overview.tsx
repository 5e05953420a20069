import type { JSX } from 'preact'
import { useEffect } from 'preact/hooks'
import type { NodeStatus } from '../../control/api-types.ts'
import { useAct } from '../act.ts'
import { connection } from '../connection.ts'
import { bytes, clock, countryName, duration, latency, list, plural } from '../format.ts'
import { latestStreams, watchLatest } from '../latest-streams.ts'
import { askForCircuit, circuitInUse, circuits, measure, status, traffic, useUptime } from '../node-state.ts'
import { ActButton } from '../parts/act-button.tsx'
import { Badge, Card, Figure, Figures } from '../parts/card.tsx'
import { CopyButton } from '../parts/copy-button.tsx'
import { CountryCard } from '../parts/country-choice.tsx'
import { Draw } from '../parts/icons.tsx'
import { PathDrawing, PathLine } from '../parts/path-drawing.tsx'
import { ReachabilityCard } from '../parts/reachability-card.tsx'
import { ServedFigures, ServedPlots } from '../parts/served.tsx'
import { Empty, Failed, Loading, Notice } from '../parts/states.tsx'
import { TrafficPlots } from '../parts/traffic-plots.tsx'
import { VpnCard } from '../parts/vpn-card.tsx'
import { Warnings } from '../parts/warnings.tsx'
import { useResource } from '../resource.ts'
import { failureOf } from '../stream-end.ts'
import { useNow } from '../use-now.ts'

/** What the node does now, at a glance. */
export function OverviewPage(): JSX.Element {
  const { data, error } = useResource(status)
  useResource(circuits)
  if (data === undefined)
    return error === null ? <Loading what="the node" lines={6} /> : <Failed error={error} again={() => void status.reload()} />
  const client = data.client !== null
  return (
    <>
      <Sentence />
      <Warnings warnings={data.warnings} />
      {client ? (
        <>
          <PathCard />
          <div class="columns">
            <RequestsCard />
            <div class="stack">
              <CountryCard />
              <VpnCard />
            </div>
          </div>
          <TrafficPlots />
          <NodeCard wide />
        </>
      ) : (
        <>
          <ServedFigures node={data} />
          <ServedPlots node={data} />
          <div class="columns columns-even">
            <NodeCard />
            {data.reachability === null ? null : <ReachabilityCard state={data.reachability} />}
          </div>
        </>
      )}
    </>
  )
}

/** The state in one plain sentence. */
function Sentence(): JSX.Element {
  const node = status.data.value!
  const circuit = circuitInUse.value
  const serving = node.roles.filter((role) => role !== 'client')
  let text: string
  if (connection.value.state === 'lost') text = 'The node does not answer.'
  else if (node.draining !== null) text = `The node is leaving: ${plural(node.draining.circuitsLeft, 'circuit')} of others end first.`
  else if (node.outage !== null) text = `${node.outage.message.slice(0, 1).toUpperCase()}${node.outage.message.slice(1)}.`
  else if (!node.ready) text = `The node is starting: it knows ${plural(node.view.known.total, 'relay')} so far.`
  else if (node.client === null) text = `The node serves the network as ${list(serving)}.`
  else if (circuit === null || circuit.state !== 'open') text = 'The node is ready. It builds a circuit for your next request.'
  else {
    const by = [...new Set(circuit.path.slice(0, -1).map(({ country }) => placeName(country)))]
    text = `Your traffic comes out in ${placeName(circuit.path.at(-1)?.country ?? null)}, by way of ${list(by)}.`
  }
  const also = node.client !== null && serving.length > 0 ? ` It also serves the network as ${list(serving)}.` : ''
  return <p class="sentence">{text + also}</p>
}

/** Those whose names want an article in a sentence. */
const WITH_ARTICLE = new Set(['AE', 'BS', 'CD', 'CF', 'CG', 'DO', 'GB', 'GM', 'IM', 'KM', 'KY', 'MH', 'MV', 'NL', 'PH', 'SB', 'SC', 'US'])

function placeName(country: string | null): string {
  if (country === null) return 'an unknown country'
  return WITH_ARTICLE.has(country) ? `the ${countryName(country)}` : countryName(country)
}

/** How long it stands that an act was done. */
const SAID_MS = 12_000

function PathCard(): JSX.Element {
  const { data, error } = useResource(circuits)
  const act = useAct(askForCircuit)
  const circuit = circuitInUse.value
  const open = circuit?.state === 'open' ? circuit.id : null
  useEffect(() => (open === null ? undefined : measure(open)), [open])
  const now = useNow()
  const last = latestStreams.value.find((stream) => stream.circuit === circuit?.id)
  const sample = traffic.value.at(-1)
  const busy = connection.value.state === 'open' && sample !== undefined && sample.sent + sample.received > 0 && now - sample.at < 5000
  const state = act.state.value
  // What was said of an attempt is over when a circuit is there, or was read.
  useEffect(() => {
    if (open !== null && act.state.peek().kind === 'failed') act.clear()
  }, [open])
  useEffect(() => {
    if (state.kind !== 'done') return
    const timer = setTimeout(act.clear, SAID_MS)
    return () => clearTimeout(timer)
  }, [state.kind])
  const button = (
    <ActButton act={act} class="button-main" busy="Building …">
      <Draw name="refresh" />
      New circuit
    </ActButton>
  )
  return (
    <Card title="Your circuit" number={circuit?.id} class="path-card" aside={button}>
      {circuit !== null ? (
        <>
          <PathDrawing circuit={circuit} target={last?.target ?? null} busy={busy} />
          <Figures>
            <Figure name="Round trip" value={latency(circuit.rttMs)} note="to the exit and back" />
            <Figure
              name="Age"
              value={duration(now - circuit.createdAt)}
              note={circuit.buildMs === null ? undefined : `built in ${latency(circuit.buildMs)}`}
            />
            <Figure
              name="Streams"
              value={String(circuit.streams)}
              note={circuit.isolation === null ? 'not used yet' : circuit.streams > 1 ? 'share one isolation key' : 'open now'}
            />
            <Figure name="Carried" value={bytes(circuit.bytesSent + circuit.bytesReceived)} note={`${bytes(circuit.bytesReceived)} down`} />
          </Figures>
        </>
      ) : data === undefined && error === null ? (
        <Loading what="the circuits" />
      ) : (
        <Empty icon="circuits" title="No circuit yet">
          <p>The node builds one when something asks for it, or when you press “New circuit”.</p>
        </Empty>
      )}
      {state.kind === 'failed' ? <Notice kind="bad">No new circuit: {state.error.message}</Notice> : null}
      {state.kind === 'done' ? (
        <Notice kind="good">New requests take fresh circuits from now on. The first one is circuit {state.value.id}.</Notice>
      ) : null}
    </Card>
  )
}

/** Requests that a person sees here. */
const SHOWN_REQUESTS = 9

function RequestsCard(): JSX.Element {
  useEffect(() => watchLatest(SHOWN_REQUESTS), [])
  const recent = latestStreams.value.slice(0, SHOWN_REQUESTS)
  const known = circuits.data.value ?? []
  const socks = status.data.value?.socks
  return (
    <Card title="Last requests" class="requests-card" aside={<a href="#/streams">All streams</a>}>
      {recent.length === 0 ? (
        <Empty icon="streams" title="Nothing went through yet">
          {socks ? (
            <>
              <p>Try it in a terminal, and watch this page:</p>
              <pre>
                <code>curl -x socks5h://{socks} https://example.com/</code>
              </pre>
            </>
          ) : null}
        </Empty>
      ) : (
        <ul class="requests">
          {recent.map((stream) => {
            const circuit = known.find(({ id }) => id === stream.circuit)
            const failure = failureOf(stream)
            return (
              <li key={stream.id}>
                <span class="request-target" title={stream.target ?? undefined}>
                  {stream.target}
                </span>
                <span class="request-path">
                  {circuit === undefined ? <span class="muted">circuit {stream.circuit ?? '–'}</span> : <PathLine circuit={circuit} />}
                </span>
                <span class="request-bytes">{bytes(stream.bytesReceived + stream.bytesSent)}</span>
                <span class="request-when">
                  {failure !== null ? (
                    <Badge tone="bad">failed</Badge>
                  ) : stream.state === 'closed' ? (
                    clock(stream.openedAt)
                  ) : (
                    <Badge tone={stream.state === 'open' ? 'good' : 'busy'}>{stream.state}</Badge>
                  )}
                </span>
                {failure === null ? null : (
                  <span class="request-why">
                    {failure}, {clock(stream.openedAt)}
                  </span>
                )}
              </li>
            )
          })}
        </ul>
      )}
    </Card>
  )
}

/** The publisher of the network file in short; null when nobody signed it. */
function signedBy(signature: NodeStatus['network']['signature']): string | null {
  if (signature === null) return null
  const issued =
    signature.issued === null
      ? ''
      : `, ${new Date(signature.issued).toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })}`
  return `${signature.publisher.slice(0, 12)}…${issued}`
}

function StateBadge({ node }: { readonly node: NodeStatus }): JSX.Element {
  if (node.outage !== null) return <Badge tone="bad">Reaches nothing</Badge>
  return <Badge tone={node.ready ? 'good' : 'busy'}>{node.ready ? 'Ready' : 'Starting'}</Badge>
}

function NodeCard({ wide = false }: { readonly wide?: boolean }): JSX.Element {
  const node = status.data.value!
  const uptime = useUptime()
  /** The third: what a button copies. */
  const rows: readonly (readonly [name: string, value: string | null, copied?: string])[] = [
    ['SOCKS5 proxy', node.socks, 'the address of the SOCKS5 proxy'],
    ['HTTP proxy', node.http, 'the address of the HTTP proxy'],
    ['DNS', node.dns, 'the address of the DNS listener'],
    ['Network', node.network.name],
    ['Signed by', signedBy(node.network.signature)],
    ['Relays for paths', `${node.view.eligible.total} of ${node.view.known.total} known`],
    ['Version', node.version],
    ['Running for', duration(uptime)],
  ]
  return (
    <Card title="This node" aside={<StateBadge node={node} />}>
      <dl class={wide ? 'facts facts-wide' : 'facts'}>
        {rows.map(([name, value, copied]) =>
          value === null ? null : (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                {value}
                {copied === undefined ? null : <CopyButton text={value} what={copied} />}
              </dd>
            </div>
          ),
        )}
      </dl>
    </Card>
  )
}
