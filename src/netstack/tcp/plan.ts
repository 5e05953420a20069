/** What is to be sent next, filled by `plan`. */
export interface Plan {
  kind: 'new' | 'retransmission' | 'probe'
  sequence: number
  /** Of data, from `ringOffset` on. */
  length: number
  ringOffset: number
  fin: boolean
  push: boolean
}

/** What the connection knows and the sender asks for. */
export interface SenderClock {
  /** The timestamp option's value at a time. */
  timestampAt(time: number): number
}
