import { computed, signal } from '@preact/signals'
import type { JSX } from 'preact'
import type { Stream } from '../../control/api-types.ts'
import { ask } from '../api.ts'
import { bytes, duration, number } from '../format.ts'
import { status, streams } from '../node-state.ts'
import { Badge, Card } from '../parts/card.tsx'
import { Draw } from '../parts/icons.tsx'
import { narrow } from '../parts/narrow.ts'
import { SearchField } from '../parts/search-field.tsx'
import { Empty, Failed, Loading } from '../parts/states.tsx'
import { type Column, VirtualTable } from '../parts/virtual-table.tsx'
import { useResource } from '../resource.ts'
import { useNow } from '../use-now.ts'

const wanted = signal('')
const ending = signal<ReadonlySet<number>>(new Set())

/** Newest first; those that the search finds. */
const shown = computed(() => {
  const text = wanted.value.trim().toLowerCase()
  const all = streams.data.value ?? []
  const found = text === '' ? [...all] : all.filter((stream) => matches(stream, text))
  return found.sort((a, b) => b.openedAt - a.openedAt || b.id - a.id)
})

const TONES = { waiting: 'busy', opening: 'busy', open: 'good', closing: 'idle', closed: 'idle' } as const

const columns: readonly Column<Stream>[] = [
  {
    key: 'target',
    name: 'Target',
    cell: ({ target, kind, state, bytesReceived, bytesSent }) => (
      <>
        <span class="stream-target" title={target ?? undefined}>
          {target ?? <em>{kind}</em>}
        </span>
        {narrow.value ? (
          <span class="stream-more">
            {state === 'open' ? '' : `${state} · `}
            {bytes(bytesReceived)} down · {bytes(bytesSent)} up
          </span>
        ) : null}
      </>
    ),
  },
  { key: 'state', name: 'State', cell: ({ state }) => <Badge tone={TONES[state]}>{state}</Badge> },
  { key: 'isolation', name: 'Isolation key', cell: ({ isolation }) => <span class="mono">{isolation ?? '–'}</span> },
  { key: 'circuit', name: 'Circuit', number: true, cell: ({ circuit }) => circuit ?? '–' },
  { key: 'sent', name: 'Up', number: true, cell: ({ bytesSent }) => bytes(bytesSent) },
  { key: 'received', name: 'Down', number: true, cell: ({ bytesReceived }) => bytes(bytesReceived) },
  { key: 'age', name: 'Age', number: true, cell: ({ openedAt }) => <Age since={openedAt} /> },
  {
    key: 'end',
    name: 'End',
    cell: ({ id, target, kind }) => (
      <button
        type="button"
        class="icon-button"
        disabled={ending.value.has(id)}
        aria-label={`End the stream to ${target ?? kind}`}
        onClick={() => void end(id)}
      >
        <Draw name="close" />
      </button>
    ),
  },
]

/** Every connection that goes through the mesh now. */
export function StreamsPage(): JSX.Element {
  const { data, error } = useResource(streams)
  if (data === undefined)
    return error === null ? <Loading what="the streams" lines={8} /> : <Failed error={error} again={() => void streams.reload()} />
  if (status.data.value?.client === null) {
    return (
      <Card title="Streams">
        <Empty icon="streams" title="This node uses no streams of its own">
          <p>It serves others, and cannot see what they open. With the role client it carries your own traffic too, and shows it here.</p>
        </Empty>
      </Card>
    )
  }
  const rows = shown.value
  return (
    <>
      <div class="toolbar">
        <SearchField label="Search streams" value={wanted} placeholder="Target, isolation key or circuit" />
        <p class="count" role="status">
          {rows.length === data.length ? `${number(data.length)} open` : `${number(rows.length)} of ${number(data.length)}`}
        </p>
      </div>
      <VirtualTable
        label="Streams"
        kind="streams"
        rows={rows}
        columns={columns}
        keyOf={({ id }) => id}
        rowHeight={narrow.value ? 56 : 40}
        empty={
          wanted.value === '' ? (
            <Empty icon="streams" title="No stream is open">
              <p>Each connection of a program that uses Shallot is one. Those with the same isolation key may share a circuit.</p>
            </Empty>
          ) : (
            <Empty icon="search" title="No stream like that">
              <p>The search looks at targets, isolation keys and circuit numbers.</p>
            </Empty>
          )
        }
      />
    </>
  )
}

function Age({ since }: { readonly since: number }): JSX.Element {
  return <>{duration(useNow() - since)}</>
}

function matches({ target, isolation, circuit, kind }: Stream, text: string): boolean {
  return (target ?? kind).toLowerCase().includes(text) || isolation?.toLowerCase().includes(text) === true || String(circuit ?? '') === text
}

async function end(id: number): Promise<void> {
  ending.value = new Set(ending.value).add(id)
  // A stream that is gone already is what was wanted.
  await ask('DELETE /v1/streams/{id}', { path: { id } }).catch(() => null)
  await streams.reload()
  const left = new Set(ending.value)
  left.delete(id)
  ending.value = left
}
