import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useEffect } from 'preact/hooks'
import type { LogLevel, LogLevels, LogLine } from '../../control/api-types.ts'
import { useAct } from '../act.ts'
import { ask } from '../api.ts'
import { clock, number } from '../format.ts'
import {
  followLog,
  LEVELS,
  level,
  loaded,
  logError,
  logText,
  pause,
  paused,
  resume,
  shownLines,
  subsystem,
  subsystems,
  waiting,
} from '../log-lines.ts'
import { Draw } from '../parts/icons.tsx'
import { SearchField } from '../parts/search-field.tsx'
import { Empty, Loading, Notice } from '../parts/states.tsx'
import { type Column, VirtualTable } from '../parts/virtual-table.tsx'
import { answerOf, useResource } from '../resource.ts'

/** Others may set them too: a command, another page. */
const levels = answerOf('GET /v1/log-levels', 3000)
const opened = signal<LogLine | null>(null)

const columns: readonly Column<LogLine>[] = [
  { key: 'at', name: 'Time', cell: ({ at }) => clock(at) },
  { key: 'level', name: 'Level', cell: (line) => <span class={`level level-${line.level}`}>{line.level}</span> },
  { key: 'sub', name: 'Subsystem', cell: ({ sub }) => <span class="mono">{sub || 'node'}</span> },
  {
    key: 'message',
    name: 'Message',
    cell: (line) => (
      <button
        type="button"
        class="log-message"
        onClick={() => (opened.value = opened.value === line ? null : line)}
        aria-expanded={opened.value === line}
      >
        {line.message} <span class="muted">{fieldsOf(line)}</span>
      </button>
    ),
  },
]

/** What the node writes, as it writes it. */
export function LogsPage(): JSX.Element {
  useEffect(followLog, [])
  return (
    <>
      <div class="toolbar">
        <SearchField label="Search the log" value={logText} placeholder="Text or field" />
        <label class="pick">
          <span>Level</span>
          <select value={level.value} onChange={({ currentTarget }) => (level.value = currentTarget.value as LogLevel)}>
            {LEVELS.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label class="pick">
          <span>Subsystem</span>
          <select value={subsystem.value} onChange={({ currentTarget }) => (subsystem.value = currentTarget.value)}>
            <option value="">All</option>
            {withChosen(subsystems.value).map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <button type="button" class="button" aria-pressed={paused.value} onClick={paused.value ? resume : pause}>
          <Draw name={paused.value ? 'play' : 'pause'} />
          {paused.value ? `Go on${waiting.value.length > 0 ? ` (${number(waiting.value.length)} new)` : ''}` : 'Pause'}
        </button>
      </div>
      {logError.value === null ? null : <Notice kind="bad">{logError.value}</Notice>}
      {opened.value === null ? null : <Details line={opened.value} />}
      {loaded.value ? (
        <VirtualTable
          label="Log"
          kind="logs"
          rows={shownLines.value}
          columns={columns}
          rowHeight={30}
          follow={!paused.value}
          keyOf={({ seq, at }) => `${at}-${seq}`}
          empty={
            logError.value === null ? (
              <Empty icon="logs" title="No line like that">
                <p>Lines come as the node writes them. What it does not write, no filter shows: see the levels below.</p>
              </Empty>
            ) : (
              <Empty icon="offline" title="The log is not here yet">
                <p>It is read as soon as the node answers.</p>
              </Empty>
            )
          }
        />
      ) : (
        <Loading what="the log" lines={8} />
      )}
      <LevelsCard />
    </>
  )
}

function Details({ line }: { readonly line: LogLine }): JSX.Element {
  return (
    <section class="card log-details" aria-label="Line">
      <header class="card-head">
        <h2>{line.message}</h2>
        <button type="button" class="icon-button" aria-label="Close" onClick={() => (opened.value = null)}>
          <Draw name="close" />
        </button>
      </header>
      <dl class="facts">
        <div>
          <dt>When</dt>
          <dd>{new Date(line.at).toISOString()}</dd>
        </div>
        <div>
          <dt>Subsystem</dt>
          <dd>{line.sub || 'node'}</dd>
        </div>
        {Object.entries(line.fields).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd class="wrap mono">{typeof value === 'string' ? value : JSON.stringify(value)}</dd>
          </div>
        ))}
      </dl>
    </section>
  )
}

/** What the node writes at all, until it ends. */
function LevelsCard(): JSX.Element | null {
  const { data } = useResource(levels)
  const act = useAct(async (next: LogLevels) => {
    levels.data.value = await ask('PUT /v1/log-levels', { body: next })
  })
  if (data === undefined) return null
  const names = withChosen(subsystems.value)
  const options = (
    <>
      {LEVELS.map((name) => (
        <option key={name} value={name}>
          {name}
        </option>
      ))}
    </>
  )
  return (
    <details class="card levels">
      <summary>
        What the node writes <span class="muted">– {data.level} and above, until it ends</span>
      </summary>
      <div class="level-grid">
        <label class="pick">
          <span>Everything</span>
          <select value={data.level} onChange={({ currentTarget }) => void act.run({ ...data, level: currentTarget.value as LogLevel })}>
            {options}
          </select>
        </label>
        {[...new Set([...names, ...Object.keys(data.subsystems)])].sort().map((name) => (
          <label class="pick" key={name}>
            <span class="mono">{name}</span>
            <select
              value={data.subsystems[name] ?? ''}
              onChange={({ currentTarget }) => {
                const { [name]: _, ...others } = data.subsystems
                const chosen = currentTarget.value
                void act.run({ ...data, subsystems: chosen === '' ? others : { ...others, [name]: chosen as LogLevel } })
              }}
            >
              <option value="">as everything</option>
              {options}
            </select>
          </label>
        ))}
      </div>
      {act.state.value.kind === 'failed' ? <Notice kind="bad">{act.state.value.error.message}</Notice> : null}
    </details>
  )
}

function withChosen(names: readonly string[]): readonly string[] {
  return subsystem.value === '' || names.includes(subsystem.value) ? names : [...names, subsystem.value].sort()
}

function fieldsOf({ fields }: LogLine): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ')
}
