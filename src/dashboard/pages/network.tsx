import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { useEffect } from 'preact/hooks'
import type { RelayBrief, ServingRole } from '../../control/api-types.ts'
import { onEvent, wantEvents } from '../connection.ts'
import { countryName, moment, number, plural, rate, shortId } from '../format.ts'
import { network } from '../node-state.ts'
import { Badge, Bars, Card, Figure, Figures } from '../parts/card.tsx'
import { Plot } from '../parts/plot.tsx'
import { RelayDetails } from '../parts/relay-details.tsx'
import { SearchField } from '../parts/search-field.tsx'
import { Empty, Failed, Loading } from '../parts/states.tsx'
import { type Column, VirtualTable } from '../parts/virtual-table.tsx'
import { relays, shownRelays, takeRelays, wantedCountry, wantedRole, wantedText } from '../relay-list.ts'
import { useResource } from '../resource.ts'

const ROLES: readonly ServingRole[] = ['guard', 'middle', 'exit', 'relay', 'bootstrap']
const ROLE_NAMES = { guard: 'Guards', middle: 'Middles', exit: 'Exits', relay: 'NAT relays', bootstrap: 'Bootstraps' } as const
/** Of those that are no hop of a path. */
const NOTES: Partial<Record<ServingRole, string>> = { relay: 'for nodes behind NAT', bootstrap: 'for newcomers' }
/** Countries that are shown before the list is opened. */
const FIRST_COUNTRIES = 8

const opened = signal<string | null>(null)
const allCountries = signal(false)

const columns: readonly Column<RelayBrief>[] = [
  {
    key: 'relay',
    name: 'Relay',
    cell: ({ id }) => (
      <button type="button" class="link mono" onClick={() => (opened.value = id)} aria-label={`Relay ${shortId(id)}: details`}>
        {shortId(id)}
      </button>
    ),
  },
  { key: 'country', name: 'Country', cell: ({ country }) => <span class={country === null ? 'muted' : ''}>{countryName(country)}</span> },
  { key: 'roles', name: 'Roles', cell: ({ roles }) => roles.join(', ') },
  {
    key: 'eligible',
    name: 'For paths',
    cell: ({ eligible }) => <Badge tone={eligible ? 'good' : 'idle'}>{eligible ? 'yes' : 'no'}</Badge>,
  },
  { key: 'weight', name: 'Weight', number: true, cell: ({ weight }) => rate(weight) },
  { key: 'software', name: 'Version', cell: ({ software }) => software },
  { key: 'seen', name: 'First seen', number: true, cell: ({ firstSeenAt }) => moment(firstSeenAt) },
]

/** The mesh as this node knows it. */
export function NetworkPage(): JSX.Element {
  const { data, error } = useResource(network)
  const list = useResource(relays)
  useEffect(() => {
    const stopWanting = wantEvents(['relays'])
    const stopHearing = onEvent((event) => {
      takeRelays(event)
      if (event.type === 'view') network.refresh()
    })
    return () => {
      stopHearing()
      stopWanting()
    }
  }, [])
  if (data === undefined)
    return error === null ? <Loading what="the network" lines={8} /> : <Failed error={error} again={() => void network.reload()} />
  const countries = data.countries.toSorted((a, b) => b.known - a.known)
  const shown = allCountries.value ? countries : countries.slice(0, FIRST_COUNTRIES)
  return (
    <>
      <Figures>
        {ROLES.map((role) => {
          const row = data.roles.find(({ key }) => key === role)
          return (
            <Figure
              key={role}
              name={ROLE_NAMES[role]}
              value={number(row?.known ?? 0)}
              note={NOTES[role] ?? `${number(row?.eligible ?? 0)} for your paths`}
            />
          )
        })}
      </Figures>
      <div class="columns columns-even">
        <Card title="How the view grew">
          {data.history.length < 2 ? (
            <Empty icon="network" title="Too early to tell">
              <p>One point is added every minute.</p>
            </Empty>
          ) : (
            <Plot
              label={`Relays known: ${data.history.at(-1)!.known}, of which ${data.history.at(-1)!.eligible} are for paths`}
              times={data.history.map(({ at }) => at)}
              when={(at) => new Date(at).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' })}
              show={(value) => number(Math.round(value))}
              unit="count"
              height={220}
              lines={[
                { name: 'Known', colour: 'plot-1', values: data.history.map(({ known }) => known) },
                { name: 'For paths', colour: 'plot-2', values: data.history.map(({ eligible }) => eligible) },
              ]}
            />
          )}
          <h3>Versions</h3>
          <Bars
            label="Versions"
            rows={data.versions
              .toSorted((a, b) => b.known - a.known)
              .map(({ key, known }) => ({ key, name: key, value: known, text: number(known) }))}
          />
        </Card>
        <Card
          title="Countries"
          aside={
            wantedCountry.value === '' ? null : (
              <button type="button" class="link" onClick={() => (wantedCountry.value = '')}>
                Show all
              </button>
            )
          }
        >
          <Bars
            label="Countries; press one to see its relays alone"
            chosen={wantedCountry.value}
            choose={(key) => (wantedCountry.value = wantedCountry.value === key ? '' : key)}
            rows={shown.map(({ key, known, exits }) => ({
              key,
              name: countryName(key),
              value: known,
              text: `${number(known)}${exits > 0 ? ` · ${plural(exits, 'exit')}` : ''}`,
            }))}
          />
          {countries.length > FIRST_COUNTRIES ? (
            <button
              type="button"
              class="link"
              aria-expanded={allCountries.value}
              onClick={() => (allCountries.value = !allCountries.value)}
            >
              {allCountries.value ? 'Show fewer' : `Show all ${countries.length} countries`}
            </button>
          ) : null}
        </Card>
      </div>
      <section aria-labelledby="relays-title">
        <div class="toolbar">
          <h2 id="relays-title">Relays</h2>
          <SearchField label="Search relays" value={wantedText} placeholder="Node id, country or version" />
          <label class="pick">
            <span>Role</span>
            <select value={wantedRole.value} onChange={({ currentTarget }) => (wantedRole.value = currentTarget.value as ServingRole | '')}>
              <option value="">All</option>
              {ROLES.map((role) => (
                <option key={role} value={role}>
                  {ROLE_NAMES[role]}
                </option>
              ))}
            </select>
          </label>
          <p class="count" role="status">
            {number(shownRelays.value.length)} of {number(list.data?.length ?? 0)}
          </p>
        </div>
        {list.data === undefined && list.error !== null ? (
          <Failed error={list.error} again={() => void relays.reload()} />
        ) : list.data === undefined ? (
          <Loading what="the relays" lines={8} />
        ) : (
          <VirtualTable
            label="Relays"
            kind="relays"
            rows={shownRelays.value}
            columns={columns}
            keyOf={({ id }) => id}
            empty={
              <Empty icon="network" title={list.data.length === 0 ? 'No relay is known yet' : 'No relay like that'}>
                <p>
                  {list.data.length === 0
                    ? 'The node asks its bootstraps and fills its view.'
                    : 'Search for less, or for another role or country.'}
                </p>
              </Empty>
            }
          />
        )}
      </section>
      {opened.value === null ? null : <RelayDetails id={opened.value} close={() => (opened.value = null)} />}
    </>
  )
}
