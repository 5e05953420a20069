import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useEffect } from 'preact/hooks'
import type { Setting, SettingsChanged, SettingValue } from '../../control/api-types.ts'
import { type Act, useAct } from '../act.ts'
import { ask } from '../api.ts'
import { bytes, duration, list, number, plural } from '../format.ts'
import { network, settings } from '../node-state.ts'
import { ActButton } from '../parts/act-button.tsx'
import { Badge } from '../parts/card.tsx'
import { NotWritable } from '../parts/not-writable.tsx'
import { SearchField } from '../parts/search-field.tsx'
import { SettingInput } from '../parts/setting-input.tsx'
import { Empty, Failed, Loading, Notice } from '../parts/states.tsx'
import { useResource } from '../resource.ts'
import { fieldOf, textOf, typedValue } from '../setting-field.ts'

type Draft = ReadonlyMap<string, SettingValue | null>

/** What was changed and is not saved; null: back to the default. It outlives a look at another page. */
const draft = signal<Draft>(new Map())
const problems = signal<ReadonlyMap<string, string>>(new Map())
const wanted = signal('')
const section = signal('path')

type SaveAct = Act<readonly [], SettingsChanged>

/** The configuration, section by section, with what each key may be. */
export function SettingsPage(): JSX.Element {
  const { data, error } = useResource(settings)
  useResource(network)
  const save: SaveAct = useAct(async () => {
    problems.value = new Map()
    const set = Object.fromEntries([...draft.peek()].map(([key, value]) => [key, toSend(key, value)]))
    try {
      const changed = await ask('PATCH /v1/settings', { body: { set } })
      draft.value = new Map()
      await settings.reload()
      return changed
    } catch (failure) {
      const found = (failure as { problems?: readonly { key: string; message: string }[] }).problems ?? []
      problems.value = new Map(found.map(({ key, message }) => [key, message]))
      const first = found.find(({ key }) => key !== '')
      if (first !== undefined) show(first.key)
      throw failure
    }
  })
  const again = useAct(async () => {
    const changed = await ask('POST /v1/reload')
    await settings.reload()
    return changed
  })
  if (data === undefined)
    return error === null ? <Loading what="the settings" lines={8} /> : <Failed error={error} again={() => void settings.reload()} />
  const text = wanted.value.trim().toLowerCase()
  const current = data.sections.find(({ name }) => name === section.value) ?? data.sections[0]
  const shown =
    text === ''
      ? current === undefined
        ? []
        : [current]
      : data.sections
          .map((part) => ({ ...part, keys: part.keys.filter(({ key, help }) => `${key} ${help}`.toLowerCase().includes(text)) }))
          .filter(({ keys }) => keys.length > 0)
  const restart = data.sections.flatMap(({ keys }) => keys).filter(({ pending }) => pending)
  return (
    <>
      <div class="toolbar">
        <SearchField label="Search settings" value={wanted} placeholder="Search all settings" />
        <p class="muted file">
          Kept in <span class="mono">{data.file}</span>
        </p>
        <ActButton act={again} class="button-small" busy="Reading …">
          Read the file again
        </ActButton>
      </div>
      {again.state.value.kind === 'done' ? <Notice kind="good">{readOf(again.state.value.value)}</Notice> : null}
      {again.state.value.kind === 'failed' ? (
        <Notice kind="bad">Not read, and nothing changes: {again.state.value.error.message}</Notice>
      ) : null}
      {data.writable ? null : <NotWritable file={data.file} />}
      {restart.length === 0 ? null : (
        <Notice kind="info">
          {plural(restart.length, 'change')} {restart.length === 1 ? 'counts' : 'count'} from the next start of the node:{' '}
          {list(restart.map(({ key }) => key))}.
        </Notice>
      )}
      <div class="settings">
        <nav aria-label="Sections" class="sections">
          <ul>
            {data.sections.map(({ name, keys }) => {
              const changed = keys.filter(({ key }) => draft.value.has(key)).length
              return (
                <li key={name}>
                  <button
                    type="button"
                    aria-current={text === '' && name === current?.name ? 'true' : undefined}
                    onClick={() => {
                      wanted.value = ''
                      section.value = name
                    }}
                  >
                    {name}
                    {changed === 0 ? null : <span class="dot-count">{number(changed)} changed</span>}
                  </button>
                </li>
              )
            })}
          </ul>
        </nav>
        <label class="pick section-pick">
          <span>Section</span>
          <select value={current?.name} onChange={({ currentTarget }) => (section.value = currentTarget.value)}>
            {data.sections.map(({ name }) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <form
          class="keys"
          onSubmit={(event) => {
            event.preventDefault()
            void save.run()
          }}
        >
          {shown.length === 0 ? (
            <Empty icon="search" title="No setting like that">
              <p>The search looks at names and descriptions.</p>
            </Empty>
          ) : null}
          {shown.map(({ name, help, keys }) => (
            <section key={name} class="card" aria-labelledby={`section-${name}`}>
              <h2 id={`section-${name}`} class="mono">
                [{name}]
              </h2>
              {help === '' ? null : <p class="muted">{help}</p>}
              {keys.map((setting) => (
                <SettingRow key={setting.key} setting={setting} locked={!data.writable || setting.secret || setting.change === 'token'} />
              ))}
            </section>
          ))}
          <SaveBar save={save} />
        </form>
      </div>
    </>
  )
}

function SettingRow({ setting, locked }: { readonly setting: Setting; readonly locked: boolean }): JSX.Element {
  const { key, help, type, live, set, secret, pending } = setting
  const id = `set-${key}`
  const field = fieldOf(setting)
  const changed = draft.value.has(key)
  const drafted = draft.value.get(key)
  const usual = setting.default
  const value = changed ? (drafted === null ? usual : drafted) : setting.value
  const problem = problems.value.get(key)
  return (
    <div class={`setting ${changed ? 'setting-changed' : ''} ${problem === undefined ? '' : 'setting-bad'}`}>
      <div class="setting-head">
        <label for={id} class="mono">
          {key.slice(key.lastIndexOf('.') + 1)}
        </label>
        <span class="setting-when">{live ? 'in force at once' : 'from the next start'}</span>
        {pending ? <Badge tone="busy">waits for a restart</Badge> : null}
      </div>
      <p id={`${id}-help`} class="setting-help">
        {help}
      </p>
      {secret ? (
        <p class="muted">{set ? 'Set in the file. Its value is not shown; change it there.' : 'Not set. It is written into the file.'}</p>
      ) : (
        <SettingInput
          id={id}
          setting={setting}
          field={field}
          value={value}
          invalid={problem !== undefined}
          describedBy={`${id}-help ${id}-type${problem === undefined ? '' : ` ${id}-problem`}`}
          locked={locked}
          change={(next) => edit(setting, next)}
        />
      )}
      {setting.change === 'token' && !secret ? (
        <p class="muted">Not changed from a browser: it decides over files, trust or who may use the node. Change it in the file.</p>
      ) : null}
      {problem === undefined ? null : (
        <p id={`${id}-problem`} class="problem" role="alert">
          {problem}
        </p>
      )}
      <p id={`${id}-type`} class="setting-type">
        {inUnits(key, value)}
        {type}
        {usual === undefined ? '' : ` · default ${defaultText(usual)}`}
        {(set || (changed && drafted !== null)) && !secret && !locked && usual !== undefined ? (
          <>
            {' · '}
            <button type="button" class="link" onClick={() => edit(setting, null)} aria-label={`${key}: back to the default`}>
              back to the default
            </button>
          </>
        ) : null}
        {changed ? (
          <>
            {' · '}
            <button type="button" class="link" onClick={() => edit(setting, setting.value ?? null)} aria-label={`${key}: undo`}>
              undo
            </button>
          </>
        ) : null}
      </p>
    </div>
  )
}

/** "= 10 min · " for 600000 milliseconds: long numbers in the units that people think in. */
function inUnits(key: string, value: unknown): string {
  if (typeof value !== 'number' || value < 1000) return ''
  if (key.endsWith('_ms')) return `= ${value < 60_000 ? `${value / 1000} s` : duration(value)} · `
  return /_bytes(_per_second)?$/.test(key) ? `= ${bytes(value)}${key.endsWith('_second') ? '/s' : ''} · ` : ''
}

function defaultText(usual: SettingValue): string {
  if (Array.isArray(usual))
    return usual.length === 0 ? 'none' : usual.map((one) => (typeof one === 'object' ? JSON.stringify(one) : String(one))).join(', ')
  return usual === '' ? 'empty' : textOf({ kind: 'json' }, usual)
}

function SaveBar({ save }: { readonly save: SaveAct }): JSX.Element {
  const count = draft.value.size
  const state = save.state.value
  const elsewhere = problems.value.get('')
  useEffect(() => {
    if (count > 0 && save.state.peek().kind === 'done') save.clear()
  }, [count, save])
  return (
    <div class={`save-bar ${count === 0 && state.kind === 'idle' ? 'save-idle' : ''}`}>
      <div role="status" class="save-said">
        {state.kind === 'done' ? <Notice kind="good">{saidOf(state.value)}</Notice> : null}
        {state.kind === 'failed' ? (
          <Notice kind="bad">{problems.value.size > 0 ? (elsewhere ?? 'Nothing was saved: see the field.') : state.error.message}</Notice>
        ) : null}
        {count > 0 && state.kind !== 'failed' ? plural(count, 'change') : null}
      </div>
      <button type="button" class="button" disabled={count === 0} onClick={discard}>
        Discard
      </button>
      <button type="submit" class="button button-main" disabled={count === 0} aria-disabled={state.kind === 'busy'}>
        {state.kind === 'busy' ? 'Saving …' : 'Save'}
      </button>
    </div>
  )

  function discard(): void {
    draft.value = new Map()
    problems.value = new Map()
    save.clear()
  }
}

function saidOf({ changed, applied, restart }: SettingsChanged): string {
  if (changed.length === 0) return 'Nothing is different.'
  if (restart.length === 0) return 'Saved, and in force.'
  const later = `${list(restart)} ${restart.length === 1 ? 'counts' : 'count'} from the next start of the node.`
  return applied.length === 0 ? `Saved. ${later}` : `Saved. ${list(applied)} in force; ${later}`
}

function readOf({ changed, applied, restart }: SettingsChanged): string {
  if (changed.length + restart.length === 0) return 'Read. Nothing in it is different.'
  const now = applied.length === 0 ? [] : [`${list(applied)} in force`]
  const later = restart.length === 0 ? [] : [`${list(restart)} from the next start of the node`]
  return `Read. ${[...now, ...later].join('; ')}.`
}

function edit(setting: Setting, value: SettingValue | null): void {
  const next = new Map(draft.peek())
  const same = JSON.stringify(value) === JSON.stringify(setting.value)
  if (same || (value === null && !setting.set)) next.delete(setting.key)
  else next.set(setting.key, value)
  draft.value = next
  const left = new Map(problems.peek())
  if (left.delete(setting.key)) problems.value = left
}

/** Typed JSON is read when it is sent: until then it is text that may be half of something. */
function toSend(key: string, value: SettingValue | null): SettingValue | null {
  const setting = settings.data
    .peek()
    ?.sections.flatMap(({ keys }) => keys)
    .find((known) => known.key === key)
  if (setting === undefined || typeof value !== 'string') return value
  return typedValue(fieldOf(setting), setting, value)
}

/** Brings the field of a key into sight, with the focus in it. */
function show(key: string): void {
  const found = settings.data.peek()?.sections.find(({ keys }) => keys.some((known) => known.key === key))
  if (found !== undefined && wanted.peek() === '') section.value = found.name
  requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(`set-${key}`)?.focus()))
}
