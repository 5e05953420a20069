import type { JSX } from 'preact'
import { useId } from 'preact/hooks'
import type { NetworkSummary } from '../../control/api-types.ts'
import { useAct } from '../act.ts'
import { ask } from '../api.ts'
import { countryName, list, plural } from '../format.ts'
import { network, settings } from '../node-state.ts'
import { useResource } from '../resource.ts'
import { Card } from './card.tsx'
import { Draw } from './icons.tsx'
import { NotWritable } from './not-writable.tsx'
import { Failed, Loading, Notice } from './states.tsx'

export const EXIT_COUNTRIES = 'path.exit_countries'
export const EXCLUDED_COUNTRIES = 'path.exclude_countries'

/** The countries that a setting holds. */
export function countriesOf(key: string): readonly string[] {
  const found = settings.data.value?.sections.flatMap(({ keys }) => keys).find((setting) => setting.key === key)
  const value: unknown = found?.value
  return Array.isArray(value) ? value.filter((code) => typeof code === 'string') : []
}

/** Where to come out, and where no hop may be. */
export function CountryCard(): JSX.Element {
  const { data, error } = useResource(settings)
  useResource(network)
  const act = useAct(async (set: Record<string, readonly string[]>) => {
    const changed = await ask('PATCH /v1/settings', { body: { set } })
    await settings.reload()
    return changed
  })
  if (data === undefined) {
    return (
      <Card title="Countries">
        {error === null ? <Loading what="the choice of countries" /> : <Failed error={error} again={() => void settings.reload()} />}
      </Card>
    )
  }
  const [exits, excluded] = [countriesOf(EXIT_COUNTRIES), countriesOf(EXCLUDED_COUNTRIES)]
  const locked = !data.writable
  const state = act.state.value
  return (
    <Card title="Countries">
      <CountryList
        label="Come out in"
        none="Anywhere"
        chosen={exits}
        only={(row) => row.exits > 0}
        not={excluded}
        locked={locked}
        change={(codes) => void act.run({ [EXIT_COUNTRIES]: codes })}
      />
      <CountryList
        label="Never through"
        none="No country is excluded"
        chosen={excluded}
        not={exits}
        all
        locked={locked}
        change={(codes) => void act.run({ [EXCLUDED_COUNTRIES]: codes })}
      />
      {locked ? <NotWritable file={data.file} /> : null}
      {leavesNone(network.data.value, exits, excluded) ? (
        <Notice kind="bad">No path is possible with these choices: not one exit, or too few relays, are left. Take a country back.</Notice>
      ) : null}
      {state.kind === 'failed' ? (
        <Notice kind="bad">{state.error.problems.map(({ message }) => message).join(' ') || state.error.message}</Notice>
      ) : null}
      {state.kind === 'done' && !leavesNone(network.data.value, exits, excluded) ? (
        <Notice kind="good">
          {state.value.restart.length > 0
            ? 'Saved. It counts from the next start of the node.'
            : `${exits.length === 0 ? 'Any exit' : `Exits in ${list(exits.map(countryName))}`} from the next request on.`}
        </Notice>
      ) : null}
    </Card>
  )
}

/** Relays that a path has. */
const HOPS = 3

/** Whether what is chosen leaves no path in the network as it is known: better said before a request fails. */
function leavesNone(known: NetworkSummary | undefined, exits: readonly string[], excluded: readonly string[]): boolean {
  if (known === undefined || (exits.length === 0 && excluded.length === 0)) return false
  // With a country excluded, relays whose country is not known are, too.
  const left = known.countries.filter(({ key }) => !excluded.includes(key) && (key !== '??' || excluded.length === 0))
  const out = left.filter(({ key }) => exits.length === 0 || exits.includes(key))
  const sum = (counts: readonly number[]): number => counts.reduce((all, count) => all + count, 0)
  // Of a network without an exit the choices are not to blame.
  if (sum(known.countries.map((row) => row.exits)) === 0) return false
  return sum(out.map((row) => row.exits)) === 0 || sum(left.map(({ eligible }) => eligible)) < HOPS
}

/** A row of countries that can be added to and taken from. */
export function CountryList(props: {
  /** Of the field that adds a country, where a label elsewhere names it. */
  readonly id?: string
  readonly label: string
  readonly none: string
  readonly chosen: readonly string[]
  /** Those that are taken by the other list. */
  readonly not: readonly string[]
  readonly only?: (row: { readonly exits: number }) => boolean
  /** Whether countries without a relay may be chosen too. */
  readonly all?: boolean
  /** Whether nothing can be changed. */
  readonly locked?: boolean
  readonly change: (codes: readonly string[]) => void
}): JSX.Element {
  const own = useId()
  const id = props.id ?? own
  const rows = network.data.value?.countries ?? []
  const free = (code: string): boolean => !props.chosen.includes(code) && !props.not.includes(code)
  const here = rows.filter(({ key }) => key !== '??' && free(key)).filter(props.only ?? (() => true))
  const others = props.all === true ? allCountries().filter((code) => free(code) && !rows.some(({ key }) => key === code)) : []
  return (
    <div class="countries">
      {props.id === undefined ? <label for={id}>{props.label}</label> : null}
      <ul aria-label={props.label}>
        {props.chosen.length === 0 ? <li class="muted">{props.none}</li> : null}
        {props.chosen.map((code) => (
          <li key={code} class="chip">
            {countryName(code)}
            <button
              type="button"
              disabled={props.locked === true}
              aria-label={`Remove ${countryName(code)}`}
              onClick={() => props.change(props.chosen.filter((other) => other !== code))}
            >
              <Draw name="close" />
            </button>
          </li>
        ))}
      </ul>
      <select
        id={id}
        value=""
        disabled={props.locked === true}
        onChange={({ currentTarget }) => {
          const code = currentTarget.value
          currentTarget.value = ''
          if (code !== '') props.change([...props.chosen, code].sort())
        }}
      >
        <option value="">Add a country …</option>
        <optgroup label="In this network">
          {here.map(({ key, known, exits }) => (
            <option key={key} value={key}>
              {countryName(key)} ({props.only === undefined ? plural(known, 'relay') : plural(exits, 'exit')})
            </option>
          ))}
        </optgroup>
        {others.length === 0 ? null : (
          <optgroup label="Without a relay now">
            {others.map((code) => (
              <option key={code} value={code}>
                {countryName(code)}
              </option>
            ))}
          </optgroup>
        )}
      </select>
    </div>
  )
}

let known: readonly string[] | null = null

/** Every code that has a name, by name. */
function allCountries(): readonly string[] {
  if (known !== null) return known
  const letters = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZ']
  // Groups of countries, and codes for no country.
  const none = new Set(['EU', 'EZ', 'UN', 'ZZ', 'XA', 'XB', 'QO'])
  known = letters
    .flatMap((first) => letters.map((second) => first + second))
    .filter((code) => !none.has(code) && countryName(code) !== code)
    .sort((a, b) => countryName(a).localeCompare(countryName(b), 'en'))
  return known
}
