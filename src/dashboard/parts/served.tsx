import type { JSX } from 'preact'
import type { NodeStatus, TrafficSample } from '../../control/api-types.ts'
import { brief, bytes, duration, number, rate } from '../format.ts'
import { useUptime } from '../node-state.ts'
import { Card, Figure, Figures } from './card.tsx'
import { Plot } from './plot.tsx'
import { SpanChoice, shownTraffic } from './traffic-plots.tsx'

/** What the node does for others, in a few numbers. */
export function ServedFigures({ node }: { readonly node: NodeStatus }): JSX.Element {
  const uptime = useUptime()
  const { relaying, exit } = node
  return (
    <Figures>
      <Figure name="Up for" value={duration(uptime)} note={`version ${node.version}`} />
      {relaying === null ? null : (
        <>
          <Figure
            name="Circuits open"
            value={number(relaying.circuitsOpen)}
            note={`of ${brief(relaying.circuitsLimit)} · ${brief(relaying.circuitsCreated)} handshakes`}
          />
          <Figure name="Cells carried" value={brief(relaying.cellsForwarded)} note={bytes(relaying.bytesForwarded)} />
          <Figure
            name="Circuits refused"
            value={brief(relaying.circuitsRefused)}
            note={`${number(relaying.circuitsShed)} shed under load`}
          />
        </>
      )}
      {exit === null ? null : (
        <Figure name="Exit streams" value={number(exit.streamsOpen)} note={`${brief(exit.streamsOpened)} since the start`} />
      )}
      {relaying === null && exit === null ? (
        <>
          <Figure name="Links open" value={number(node.links)} note="to nodes of the mesh" />
          <Figure name="Relays known" value={number(node.view.known.total)} note={`${number(node.view.eligible.total)} fit for paths`} />
        </>
      ) : null}
    </Figures>
  )
}

/** Cells, circuits, bytes and memory, live. */
export function ServedPlots({ node }: { readonly node: NodeStatus }): JSX.Element | null {
  const samples = shownTraffic()
  const last = samples.at(-1)
  if (last === undefined) return null
  const times = samples.map(({ at }) => at)
  const pick = (of: (sample: TrafficSample) => number): number[] => samples.map(of)
  return (
    <section class="plots" aria-labelledby="served-title">
      <header class="card-head">
        <h2 id="served-title">Live</h2>
        <SpanChoice />
      </header>
      <div class="plot-grid">
        {node.relaying === null ? null : (
          <>
            <Card title="Cells" class="plot-card" aside={<span class="plot-now">{brief(last.cells)} a second</span>}>
              <Plot
                label={`${last.cells} cells a second now`}
                times={times}
                show={brief}
                unit="count"
                lines={[{ name: 'Cells a second', colour: 'plot-1', values: pick(({ cells }) => cells) }]}
              />
            </Card>
            <Card title="Circuits of others" class="plot-card" aside={<span class="plot-now">{number(last.circuitsServed)}</span>}>
              <Plot
                label={`${last.circuitsServed} circuits of others now`}
                times={times}
                show={brief}
                unit="count"
                lines={[{ name: 'Circuits', colour: 'plot-2', values: pick(({ circuitsServed }) => circuitsServed) }]}
              />
            </Card>
          </>
        )}
        {node.exit === null ? null : (
          <Card
            title="To and from servers"
            class="plot-card"
            aside={<span class="plot-now">{rate(last.exitBytesIn + last.exitBytesOut)}</span>}
          >
            <Plot
              label={`${rate(last.exitBytesIn)} from servers, ${rate(last.exitBytesOut)} to servers now`}
              times={times}
              show={(value) => rate(value)}
              unit="bytes"
              lines={[
                { name: 'From servers', colour: 'plot-1', values: pick(({ exitBytesIn }) => exitBytesIn) },
                { name: 'To servers', colour: 'plot-2', values: pick(({ exitBytesOut }) => exitBytesOut) },
              ]}
            />
          </Card>
        )}
        <Card title="Memory" class="plot-card" aside={<span class="plot-now">{bytes(last.rssBytes)}</span>}>
          <Plot
            label={`${bytes(last.rssBytes)} of memory, ${bytes(last.queuedBytes)} of it cells that wait`}
            times={times}
            show={bytes}
            unit="bytes"
            lines={[
              { name: 'Resident', colour: 'plot-3', values: pick(({ rssBytes }) => rssBytes) },
              { name: 'Cells that wait', colour: 'plot-2', values: pick(({ queuedBytes }) => queuedBytes) },
            ]}
          />
        </Card>
      </div>
    </section>
  )
}
