import type { JSX } from 'preact'
import type { Circuit, Hop } from '../../control/api-types.ts'
import { countryName, latency, shortId } from '../format.ts'
import { Breakable } from './breakable.tsx'
import { Draw } from './icons.tsx'

/** What each hop is there for, in plain words. */
const PURPOSE = {
  guard: 'Knows you, not where you go',
  middle: 'Knows neither end',
  exit: 'Knows where you go, not you',
} as const

const TITLES = { guard: 'Guard', middle: 'Middle', exit: 'Exit' } as const

/**
 * The way of the traffic: you, the hops, the server. Between them the layers of the shallot: three from you to the guard, one less after
 * each hop that takes one off, none of ours on the last stretch.
 */
export function PathDrawing(props: { readonly circuit: Circuit; readonly target: string | null; readonly busy: boolean }): JSX.Element {
  const { circuit, target, busy } = props
  const moving = busy && circuit.state === 'open'
  return (
    <ol
      class={`path ${moving ? 'path-moving' : ''} ${circuit.state === 'building' ? 'path-building' : ''}`}
      aria-label={inWords(circuit, target)}
    >
      <li class="stop stop-you">
        <span class="stop-mark">
          <Draw name="laptop" />
        </span>
        <span class="stop-name">You</span>
        <span class="stop-note">This machine</span>
      </li>
      {circuit.path.map((hop, i) => (
        <HopStop hop={hop} layers={circuit.path.length - i} key={hop.id} />
      ))}
      <li class="stop stop-server">
        <Stretch layers={0} />
        <span class="stop-mark">
          <Draw name="server" />
        </span>
        <span class="stop-name stop-target" title={target ?? undefined}>
          {target === null ? 'Server' : <Breakable text={target} />}
        </span>
        <span class="stop-note">{target === null ? 'Where your next request goes' : 'Sees the exit’s address'}</span>
      </li>
    </ol>
  )
}

function HopStop({ hop, layers }: { readonly hop: Hop; readonly layers: number }): JSX.Element {
  return (
    <li class={`stop stop-hop ${hop.established ? '' : 'stop-waiting'}`}>
      <Stretch layers={layers} />
      <span class={`stop-mark rings-${layers}`}>
        <span class="stop-code">{hop.country ?? '??'}</span>
      </span>
      <span class="stop-name">{TITLES[hop.position]}</span>
      <span class="stop-country">{countryName(hop.country)}</span>
      <span class="stop-rtt">{hop.established ? latency(hop.rttMs) : 'building …'}</span>
      {hop.rttMs === null ? null : <span class="stop-way">to here and back</span>}
      <span class="stop-note">{PURPOSE[hop.position]}</span>
      <span class="stop-id" title={`${hop.id}, ${hop.address}`}>
        {shortId(hop.id)}
      </span>
    </li>
  )
}

function Stretch({ layers }: { readonly layers: number }): JSX.Element {
  return (
    <span class={`stretch layers-${layers}`} aria-hidden="true">
      {Array.from({ length: layers }, (_, i) => (
        <span key={i} class={`layer layer-${i + 1}`} />
      ))}
      <span class="spark" />
    </span>
  )
}

function inWords(circuit: Circuit, target: string | null): string {
  const hops = circuit.path.map(
    ({ position, country, rttMs }) =>
      `${position} in ${countryName(country)}${rttMs === null ? '' : `, ${latency(rttMs)} to there and back`}`,
  )
  return `Path: you, ${hops.join('; ')}; ${target ?? 'server'}`
}

/** The same in one line: country codes with arrows. */
export function PathLine({ circuit }: { readonly circuit: Circuit }): JSX.Element {
  return (
    <span class="path-line">
      {circuit.path.map(({ id, country, position, established }, i) => (
        <span key={id} class={established ? '' : 'muted'}>
          {i === 0 ? null : (
            <span class="arrow" aria-hidden="true">
              ›
            </span>
          )}
          <abbr title={`${TITLES[position]}: ${countryName(country)}, ${shortId(id)}`}>{country ?? '??'}</abbr>
        </span>
      ))}
    </span>
  )
}
