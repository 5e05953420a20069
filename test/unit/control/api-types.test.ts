import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Api } from '../../../src/control/index.ts'
import type { NatFacts, ReachFacts } from '../../../src/nat/index.ts'
import type {
  CircuitFacts,
  DrainFacts,
  GuardFacts,
  LogLevels,
  LogPage,
  NetworkSummary,
  NodeEvent,
  NodeStatus,
  RelayBrief,
  RelayFacts,
  RelayPage,
  SettingsChanged,
  SettingsFacts,
  StreamFacts,
  TrafficSample,
  VpnSessionRequest,
  Warning,
} from '../../../src/node/index.ts'
import type { VpnFacts } from '../../../src/vpn/index.ts'
import { repositoryFiles, root } from '../../support/repository.ts'

/** A type as JSON has it: without brands, deep; what may be left out stays so. */
type Plain<T> = T extends string
  ? string extends T
    ? string
    : T extends { readonly __nodeId: true }
      ? string
      : T
  : T extends readonly (infer E)[]
    ? readonly Plain<E>[]
    : T extends object
      ? { readonly [K in keyof T]: Plain<T[K]> }
      : T

/** Tallies are records of any names in the API, and of known ones in the node. */
type Loose<T> = T extends readonly (infer E)[]
  ? readonly Loose<E>[]
  : T extends object
    ? string extends keyof T
      ? 'a tally'
      : {
          readonly [K in keyof T]: K extends 'refused' | 'ended' | 'closed' | 'dropped'
            ? T[K] extends object
              ? Tallied<T[K]>
              : T[K]
            : Loose<T[K]>
        }
    : T
type Tallied<T> = T extends { readonly reason: unknown } ? Loose<T> : 'a tally'

type Same<A, B> = (<T>() => T extends Loose<Plain<A>> ? 1 : 2) extends <T>() => T extends Loose<Plain<B>> ? 1 : 2 ? true : false

/** The compiler refuses anything but `true`. */
function same<_ extends true>(): void {}

describe('the types of the API', () => {
  test('are those of what the node gives, field by field', () => {
    same<Same<NodeStatus, Api.NodeStatus>>()
    same<Same<CircuitFacts, Api.Circuit>>()
    same<Same<StreamFacts, Api.Stream>>()
    same<Same<RelayFacts, Api.Relay>>()
    same<Same<RelayBrief, Api.RelayBrief>>()
    same<Same<RelayPage, Api.RelayPage>>()
    same<Same<NetworkSummary, Api.NetworkSummary>>()
    same<Same<GuardFacts, Api.Guard>>()
    same<Same<Warning, Api.Warning>>()
    same<Same<TrafficSample, Api.TrafficSample>>()
    same<Same<NatFacts, Api.NatFacts>>()
    same<Same<ReachFacts, Api.ReachFacts>>()
    same<Same<VpnFacts, Api.VpnFacts>>()
    same<Same<LogPage, Api.LogPage>>()
    same<Same<LogLevels, Api.LogLevels>>()
    same<Same<SettingsFacts, Api.Settings>>()
    same<Same<SettingsChanged, Api.SettingsChanged>>()
    same<Same<DrainFacts, Api.DrainFacts>>()
    same<Same<VpnSessionRequest, Api.VpnSessionRequest>>()
    expect(true).toBe(true)
  })

  test('have every event of the node, as it is', () => {
    type Shared = NodeEvent['type']
    type OfApi = { [T in Shared]: Extract<Api.Event, { readonly type: T }> }
    type Member<T, E = NodeEvent> = E extends { readonly type: infer U }
      ? T extends U
        ? Omit<E, 'type'> & { readonly type: T }
        : never
      : never
    type OfNode = { [T in Shared]: { [K in keyof Member<T>]: Member<T>[K] } }
    same<Same<OfNode, OfApi>>()
    // The feed itself makes these two.
    same<Same<Exclude<Api.Event['type'], Shared>, 'log' | 'relays'>>()
  })

  test('would be found to differ', () => {
    // @ts-expect-error a field that the API does not have
    same<Same<Warning & { readonly more: number }, Api.Warning>>()
    // @ts-expect-error a field of another type
    same<Same<Omit<Warning, 'since'> & { readonly since: string }, Api.Warning>>()
    // @ts-expect-error a choice more
    same<Same<{ readonly how: ReachFacts['how'] | 'by air' }, { readonly how: Api.ReachFacts['how'] }>>()
    expect(true).toBe(true)
  })
})

/** What a node in the same process tells. A node elsewhere is asked through the API, whose document has the types of what it answers. */
const FACTS =
  /\b(NodeStatus|NodeEvent|NodeControl|(Circuit|Stream|Relay|Guard|Settings|Setting|Nat|Reach|Vpn|Drain)Facts|RelayBrief|RelayPage|NetworkSummary|TrafficSample|Log(Line|Page|Levels)|SettingsChanged)\b/
/** These hold a node that runs in their own process, or look for themselves where none runs. */
const WITH_A_NODE = /^src\/cli\/(serve|service-manager|probe|commands\/run)\.ts$|^src\/cli\/testnet\//

test('commands and the dashboard take the types of answers from the document alone', () => {
  const wrong = repositoryFiles()
    .filter((file) => /^src\/(cli|dashboard)\/.*\.tsx?$/.test(file) && !WITH_A_NODE.test(file))
    .filter((file) => {
      const text = readFileSync(join(root, file), 'utf8')
      return [...text.matchAll(/import[^']*from '[^']*\/(node|vpn|nat)\/[^']*'/g)].some(([imported]) => FACTS.test(imported))
    })
  expect(wrong).toEqual([])
})
