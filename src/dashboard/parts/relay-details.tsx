import type { JSX } from 'preact'
import { useEffect, useMemo, useRef } from 'preact/hooks'
import { useAct } from '../act.ts'
import { ask } from '../api.ts'
import { countryName, latency, list, moment, rate, shortId, words } from '../format.ts'
import { status } from '../node-state.ts'
import { Resource, useResource } from '../resource.ts'
import { ActButton } from './act-button.tsx'
import { Badge } from './card.tsx'
import { CopyButton } from './copy-button.tsx'
import { Draw } from './icons.tsx'
import { Failed, Loading, Notice } from './states.tsx'

/** One relay, in a dialog over the page. */
export function RelayDetails({ id, close }: { readonly id: string; readonly close: () => void }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null)
  const resource = useMemo(() => new Resource((signal) => ask('GET /v1/relays/{id}', { path: { id }, signal }), null), [id])
  const { data, error } = useResource(resource)
  const reach = useAct(() => ask('POST /v1/reach', { body: { id } }))
  useEffect(() => dialog.current?.showModal(), [])
  const state = reach.state.value
  const rows: readonly (readonly [string, string])[] =
    data === undefined
      ? []
      : [
          ['Country', countryName(data.country)],
          ['Roles', list(data.roles)],
          ['Addresses', data.addresses.join(', ') || 'none of its own'],
          ['Reached', data.reach === 'direct' ? 'directly' : data.reach === 'punchable' ? 'by hole punching' : 'through a NAT relay'],
          ['Claimed capacity', rate(data.bandwidth)],
          ['Weight in the draw', rate(data.weight)],
          ['Exit to ports', data.exitPorts ?? 'not an exit'],
          ['Family', data.family.length === 0 ? 'none' : data.family.map(shortId).join(', ')],
          ['Version', data.software],
          ['First seen', moment(data.firstSeenAt)],
          ['Descriptor', `of ${moment(data.publishedAt)}, good until ${moment(data.expiresAt)}`],
        ]
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="relay-title" onClose={close}>
      <header class="card-head">
        <h2 id="relay-title">Relay {shortId(id)}</h2>
        <button type="button" class="icon-button" aria-label="Close" onClick={() => dialog.current?.close()}>
          <Draw name="close" />
        </button>
      </header>
      {data === undefined ? (
        error === null ? (
          <Loading what="the relay" lines={6} />
        ) : (
          <Failed error={error} again={() => void resource.reload()} />
        )
      ) : (
        <>
          <p class="mono wrap">
            {data.id} <CopyButton text={data.id} what="the id" />
          </p>
          {data.eligible ? (
            <Badge tone="good">For your paths</Badge>
          ) : (
            <Badge tone="idle">Not for your paths: {data.notEligible.map(words).join(', ')}</Badge>
          )}
          <dl class="facts">
            {rows.map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
          {state.kind === 'done' ? (
            <Notice kind={state.value.how === 'unreachable' ? 'bad' : 'good'}>
              {words(state.value.how)}
              {state.value.reachedMs === null ? '' : ` in ${latency(state.value.reachedMs)}`}
            </Notice>
          ) : null}
          {state.kind === 'failed' ? <Notice kind="bad">{state.error.message}</Notice> : null}
          {status.data.value?.reachability == null ? null : (
            <ActButton act={reach} busy="Reaching …">
              Try to reach it
            </ActButton>
          )}
        </>
      )}
    </dialog>
  )
}
