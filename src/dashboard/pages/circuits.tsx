import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useEffect } from 'preact/hooks'
import type { Circuit } from '../../control/api-types.ts'
import { useAct } from '../act.ts'
import { ask } from '../api.ts'
import { onEvent } from '../connection.ts'
import { bytes, duration, latency, plural, words } from '../format.ts'
import { askForCircuit, circuitInUse, status } from '../node-state.ts'
import { ActButton } from '../parts/act-button.tsx'
import { Badge, Card } from '../parts/card.tsx'
import { Draw } from '../parts/icons.tsx'
import { PathDrawing, PathLine } from '../parts/path-drawing.tsx'
import { Empty, Failed, Loading, Notice } from '../parts/states.tsx'
import { answerOf, useResource } from '../resource.ts'
import { useNow } from '../use-now.ts'

const circuits = answerOf('GET /v1/circuits', 2000, { why: 1 })
const ended = signal(false)

const TONES = { building: 'busy', open: 'good', retired: 'idle', closed: 'bad' } as const
const MEANING = {
  building: 'Being built',
  open: 'Open',
  retired: 'Takes nothing new',
  closed: 'Ended',
} as const

/** Every circuit of this machine, with why its hops were chosen. */
export function CircuitsPage(): JSX.Element {
  const { data, error } = useResource(circuits)
  useEffect(
    () =>
      onEvent(({ type }) => {
        if (type.startsWith('circuit-')) circuits.refresh()
      }),
    [],
  )
  const act = useAct(askForCircuit)
  if (data === undefined)
    return error === null ? <Loading what="the circuits" lines={6} /> : <Failed error={error} again={() => void circuits.reload()} />
  if (status.data.value?.client === null) {
    return (
      <Card title="Circuits">
        <Empty icon="circuits" title="This node builds no circuits of its own">
          <p>
            It serves others: the page <a href="#/serving">Serving</a> says how much. With the role client it carries your own traffic too,
            and shows its circuits here.
          </p>
        </Empty>
      </Card>
    )
  }
  const shown = data.filter(({ state }) => ended.value || state !== 'closed').toReversed()
  const state = act.state.value
  return (
    <>
      <div class="toolbar">
        <p class="lead">A circuit is a way of three hops. Streams of different programs and sites take different ones.</p>
        <label class="tick">
          <input type="checkbox" checked={ended.value} onChange={({ currentTarget }) => (ended.value = currentTarget.checked)} />
          Show ended ones
        </label>
        <ActButton act={act} class="button-main" busy="Building …">
          <Draw name="refresh" />
          New circuit
        </ActButton>
      </div>
      {state.kind === 'failed' ? <Notice kind="bad">No new circuit: {state.error.message}</Notice> : null}
      {shown.length === 0 ? (
        <Card title="Circuits">
          <Empty icon="circuits" title="No circuit is open">
            <p>The node builds some when it is ready, and more when they are needed.</p>
          </Empty>
        </Card>
      ) : (
        <ul class="circuit-list" aria-label="Circuits">
          {shown.map((circuit) => (
            <CircuitItem circuit={circuit} key={circuit.id} />
          ))}
        </ul>
      )}
    </>
  )
}

function CircuitItem({ circuit }: { readonly circuit: Circuit }): JSX.Element {
  const now = useNow()
  const close = useAct(async () => {
    await ask('DELETE /v1/circuits/{id}', { path: { id: circuit.id } })
    await circuits.reload()
  })
  const used = circuitInUse.value?.id === circuit.id
  return (
    <li class="card circuit">
      <details>
        <summary>
          <span class="circuit-id">{circuit.id}</span>
          <Badge tone={TONES[circuit.state]}>{MEANING[circuit.state]}</Badge>
          <PathLine circuit={circuit} />
          {used ? <Badge tone="accent">In use</Badge> : null}
          <span class="circuit-facts">
            <span>{latency(circuit.rttMs)}</span>
            <span>{duration(now - circuit.createdAt)} old</span>
            <span>{plural(circuit.streams, 'stream')}</span>
            <span>{bytes(circuit.bytesSent + circuit.bytesReceived)}</span>
          </span>
        </summary>
        <div class="circuit-more">
          <PathDrawing circuit={circuit} target={null} busy={false} />
          <dl class="facts">
            <div>
              <dt>For</dt>
              <dd>{circuit.purpose}</dd>
            </div>
            <div>
              <dt>Isolation key</dt>
              <dd class="mono">{circuit.isolation ?? 'not used yet'}</dd>
            </div>
            <div>
              <dt>Built in</dt>
              <dd>{latency(circuit.buildMs)}</dd>
            </div>
            {circuit.closed === null ? null : (
              <div>
                <dt>Ended</dt>
                <dd>
                  {words(circuit.closed.reason)}
                  {circuit.closed.hop === null ? '' : `, at hop ${circuit.closed.hop + 1}`}
                </dd>
              </div>
            )}
          </dl>
          {circuit.why === null ? null : (
            <>
              <h2 class="minor">Why these hops</h2>
              <dl class="reasons">
                {circuit.why.map(({ position, reasons }) => (
                  <div key={position}>
                    <dt>{position}</dt>
                    <dd>
                      <ul>
                        {reasons.map((reason) => (
                          <li key={reason}>{reason}</li>
                        ))}
                      </ul>
                    </dd>
                  </div>
                ))}
              </dl>
            </>
          )}
          {close.state.value.kind === 'failed' ? <Notice kind="bad">{close.state.value.error.message}</Notice> : null}
          {circuit.state === 'closed' ? null : (
            <ActButton act={close} class="button-small" busy="Ending …" label={`End this circuit: ${circuit.id}`}>
              End this circuit
            </ActButton>
          )}
        </div>
      </details>
    </li>
  )
}
