import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import type { TrafficSample } from '../../control/api-types.ts'
import { brief, latency, number, rate } from '../format.ts'
import { HISTORY_S, status, traffic } from '../node-state.ts'
import { Card } from './card.tsx'
import { Plot } from './plot.tsx'
import { Empty } from './states.tsx'

const SPANS = [
  { seconds: 120, name: '2 min' },
  { seconds: HISTORY_S, name: '10 min' },
] as const

const span = signal<number>(SPANS[0].seconds)

/** The part of the past that is shown. */
export function shownTraffic(): readonly TrafficSample[] {
  return traffic.value.slice(-span.value)
}

/** Chooses how much of the past the plots show. */
export function SpanChoice(): JSX.Element {
  return (
    <fieldset class="choice">
      <legend class="hidden">Time shown</legend>
      {SPANS.map(({ seconds, name }) => (
        <label key={seconds}>
          <input type="radio" name="span" checked={span.value === seconds} onChange={() => (span.value = seconds)} />
          <span>{name}</span>
        </label>
      ))}
    </fieldset>
  )
}

/** What this machine sends and receives, how long the way is, and the circuits it builds. */
export function TrafficPlots(): JSX.Element | null {
  const samples = shownTraffic()
  const last = samples.at(-1)
  if (status.data.value?.client == null) return null
  if (last === undefined) {
    return (
      <Card title="Traffic">
        <Empty icon="overview" title="Nothing measured yet">
          <p>The plots begin a second after the page is connected.</p>
        </Empty>
      </Card>
    )
  }
  const times = samples.map(({ at }) => at)
  const pick = (of: (sample: TrafficSample) => number | null): (number | null)[] => samples.map(of)
  const built = samples.reduce((sum, { circuitsBuilt }) => sum + circuitsBuilt, 0)
  const failed = samples.reduce((sum, { circuitsFailed }) => sum + circuitsFailed, 0)
  return (
    <section class="plots" aria-labelledby="plots-title">
      <header class="card-head">
        <h2 id="plots-title">Live</h2>
        <SpanChoice />
      </header>
      <div class="plot-grid">
        <Card
          title="Traffic"
          class="plot-card"
          aside={
            <span class="plot-now">
              {rate(last.received)} down · {rate(last.sent)} up
            </span>
          }
        >
          <Plot
            label={`Traffic: ${rate(last.received)} down, ${rate(last.sent)} up now`}
            times={times}
            show={(value) => rate(value)}
            unit="bytes"
            lines={[
              { name: 'Down', colour: 'plot-1', values: pick(({ received }) => received) },
              { name: 'Up', colour: 'plot-2', values: pick(({ sent }) => sent) },
            ]}
          />
        </Card>
        <Card title="Round trip" class="plot-card" aside={<span class="plot-now">{latency(last.rttMs)}</span>}>
          <Plot
            label={`Round trip of the circuit in use: ${latency(last.rttMs)} now`}
            times={times}
            show={(value) => (value === 0 ? '0 ms' : latency(value))}
            unit="ms"
            lines={[{ name: 'Round trip', colour: 'plot-3', values: pick(({ rttMs }) => rttMs) }]}
          />
        </Card>
        <Card
          title="Circuits built"
          class="plot-card"
          aside={
            <span class="plot-now">
              {number(built)} built · {number(failed)} failed
            </span>
          }
        >
          <Plot
            label={`Circuits: ${built} built and ${failed} failed in the time shown`}
            times={times}
            show={(value) => brief(value)}
            unit="count"
            bars
            lines={[
              { name: 'Built', colour: 'plot-1', values: pick(({ circuitsBuilt }) => circuitsBuilt || null) },
              { name: 'Failed', colour: 'plot-bad', values: pick(({ circuitsFailed }) => circuitsFailed || null) },
            ]}
          />
        </Card>
        <Card title="Streams open" class="plot-card" aside={<span class="plot-now">{number(last.streamsOpen)}</span>}>
          <Plot
            label={`Streams: ${last.streamsOpen} open now`}
            times={times}
            show={(value) => brief(value)}
            unit="count"
            lines={[{ name: 'Streams', colour: 'plot-2', values: pick(({ streamsOpen }) => streamsOpen) }]}
          />
        </Card>
      </div>
    </section>
  )
}
