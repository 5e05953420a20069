import { type IceRules, MAX_SDP_CHARS } from './ice-rules.ts'

/** What is used here of node-datachannel's PeerConnection: its state, and all that carries addresses. */
export interface NativePeerConnection {
  state(): string
  onLocalCandidate(listener: (candidate: string, mid: string) => void): void
  onLocalDescription(listener: (sdp: string, type: string) => void): void
  addRemoteCandidate(candidate: string, mid: string): void
  setRemoteDescription(sdp: string, type: string): void
}

/**
 * A PeerConnection that tells a peer only the candidates that it may know, and tries only those of the peer's that it may: the library itself
 * passes on and tries everything. Local candidates wait until the description has gone out, as the peer can't use them before.
 */
export function guarded(native: NativePeerConnection, rules: IceRules): NativePeerConnection {
  let tell: ((candidate: string, mid: string) => void) | null = null
  let early: [string, string][] | null = []
  const guards: Omit<NativePeerConnection, 'state'> = {
    onLocalCandidate(listener) {
      tell = listener
      native.onLocalCandidate((candidate, mid) => {
        if (!rules.mayTell(candidate)) return
        if (early === null) listener(candidate, mid)
        else early.push([candidate, mid])
      })
    },
    onLocalDescription(listener) {
      native.onLocalDescription((sdp, type) => {
        listener(
          rules.filter(sdp, (line) => rules.mayTell(line)),
          type,
        )
        // The description is sent a few turns later; what would overtake it is an error to the peer.
        setTimeout(() => {
          const waiting = early ?? []
          early = null
          for (const [candidate, mid] of waiting) tell?.(candidate, mid)
        }, 0)
      })
    },
    addRemoteCandidate(candidate, mid) {
      if (candidate.length <= MAX_SDP_CHARS && rules.mayTry(candidate)) native.addRemoteCandidate(candidate, mid)
    },
    setRemoteDescription(sdp, type) {
      if (sdp.length > MAX_SDP_CHARS) throw new Error('the session description is too long')
      native.setRemoteDescription(
        rules.filter(sdp, (line) => rules.mayTry(line)),
        type,
      )
    },
  }
  return new Proxy(native, {
    get(target, name) {
      const own = guards[name as keyof typeof guards]
      if (own !== undefined) return own
      const value = Reflect.get(target, name) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}
