import { type NodeId, nodeKey } from '../src/base/index.ts'
import { type SignedDescriptor, signDescriptor, solveWork, workPeriod } from '../src/directory/index.ts'
import { OnionKeyring } from '../src/onion/index.ts'
import { type Reachable, SimulatedNode } from './node.ts'
import type { NodeKind } from './observations.ts'
import type { RelayProfile } from './population.ts'
import type { World } from './world.ts'

/** Looks up what is behind an identity, and how many nodes of each kind are up. */
export interface Registry {
  relay(id: NodeId): SimulatedRelay | undefined
  bootstrap(): readonly SimulatedRelay[]
  up(): Readonly<Record<NodeKind, number>>
}

/** A relay: publishes itself, and hands on to a few others what is news to it, as design §7 and the rules' `spread` say. */
export class SimulatedRelay extends SimulatedNode implements Reachable {
  readonly kind = 'relay'
  readonly id: NodeId
  readonly profile: RelayProfile
  readonly keyring: OnionKeyring
  /** Circuits that run through it now. */
  circuits = 0
  readonly #registry: Registry
  readonly #gossipPeers: NodeId[] = []
  #signed: SignedDescriptor | null = null
  #sequence = 0
  #work: { readonly period: number; readonly nonce: Uint8Array } | null = null

  constructor(world: World, profile: RelayProfile, registry: Registry) {
    super(world, `relay ${profile.index}`)
    this.id = profile.id
    this.profile = profile
    this.#registry = registry
    this.keyring = OnionKeyring.create(world.suite, nodeKey(profile.id), world.wall())
  }

  /** The present edition. */
  get signed(): SignedDescriptor {
    return this.#signed ?? this.makeEdition()
  }

  /** Signs a new edition. @param agoMs as if published that long ago */
  makeEdition(agoMs = 0): SignedDescriptor {
    const { suite, rules, networkId } = this.world
    const { profile } = this
    const publishedAt = Math.floor(this.world.wall() - agoMs)
    const period = workPeriod(publishedAt, rules.work.periodMs)
    if (this.#work?.period !== period) this.#work = { period, nonce: solveWork(suite, { networkId, id: this.id, period }, rules.work.bits) }
    this.#signed = signDescriptor(suite, profile.identity.secret, {
      sequence: ++this.#sequence,
      publishedAt,
      expiresAt: publishedAt + rules.descriptors.lifetimeMs,
      onionKey: this.keyring.current,
      addresses: [`/ip4/${profile.address}/tcp/443`, `/ip4/${profile.address}/tcp/444/tls`],
      reach: profile.reach,
      roles: profile.roles,
      exitPolicy: profile.exitPolicy,
      bandwidth: profile.claim,
      family: profile.family,
      protocols: { circuit: [1], link: [1], packet: [] },
      leaving: false,
      software: 'shallot 0.1.0',
      work: this.#work,
    })
    return this.#signed
  }

  /** Whether there is a way to it: behind NAT, one of its NAT relays must be up for the first contact. */
  get isReached(): boolean {
    const { reach } = this.profile
    return reach.kind === 'direct' || reach.via.some((id) => this.#registry.relay(id)?.place.up === true)
  }

  override start(): void {
    super.start()
    const { descriptors, spread } = this.world.rules
    this.every(descriptors.republishMs, () => this.publish())
    this.every(spread.gossipRotateMs, () => this.#gossipPeers.shift())
  }

  /** Publishes a new edition now. */
  publish(): void {
    const { descriptor, bytes } = this.makeEdition()
    this.world.observations.published(this.id, descriptor.sequence, this.world.queue.now, this.#registry.up())
    this.take(bytes)
  }

  protected nextPeer(): Reachable | null {
    const known = this.randomKnown()
    const relay = known ? this.#registry.relay(known) : undefined
    if (relay && this.view.size > 1) return relay
    const bootstrap = this.#registry.bootstrap().filter((node) => node !== this)
    return bootstrap[this.random.int(bootstrap.length)] ?? null
  }

  protected handleNews(ids: readonly NodeId[]): void {
    const peers = this.#currentGossipPeers()
    for (const id of ids) {
      const signed = this.view.get(id)?.signed
      if (!signed) continue
      for (const peer of peers) this.world.network.send(this.place, peer.place, signed.bytes.length, () => peer.take(signed.bytes))
    }
  }

  #currentGossipPeers(): SimulatedRelay[] {
    const { gossipPeers } = this.world.rules.spread
    for (let tries = 0; tries < 2 * gossipPeers && this.#gossipPeers.length < gossipPeers; tries++) {
      const id = this.randomKnown()
      if (id && !this.#gossipPeers.includes(id)) this.#gossipPeers.push(id)
    }
    return this.#gossipPeers.flatMap((id) => this.#registry.relay(id) ?? [])
  }
}
