const NEVER = Number.POSITIVE_INFINITY

/** Something with a deadline of its own; infinity: never. The last two fields are the heap's: begin with -1 and infinity. */
export interface HeapEntry {
  readonly deadline: number
  heapIndex: number
  heapTime: number
  onTimer(now: number): void
}

/** A heap of deadlines. One that moves later costs nothing until its old time has come. */
export class TimerHeap {
  readonly #heap: HeapEntry[] = []

  get size(): number {
    return this.#heap.length
  }

  /** The earliest time at which something may be due; null when nothing ever is. */
  get deadline(): number | null {
    return this.#heap[0]?.heapTime ?? null
  }

  /** Call after an entry's deadline may have changed. */
  update(entry: HeapEntry): void {
    const at = entry.deadline
    if (entry.heapIndex < 0) {
      if (at === NEVER) return
      entry.heapTime = at
      entry.heapIndex = this.#heap.length
      this.#heap.push(entry)
      this.#rise(entry)
    } else if (at < entry.heapTime) {
      entry.heapTime = at
      this.#rise(entry)
    }
  }

  remove(entry: HeapEntry): void {
    const index = entry.heapIndex
    if (index < 0) return
    const last = this.#heap.pop()!
    entry.heapIndex = -1
    if (last === entry) return
    this.#heap[index] = last
    last.heapIndex = index
    this.#rise(last)
    this.#sink(last)
  }

  /** Calls all whose time has come. */
  run(now: number): void {
    for (;;) {
      const first = this.#heap[0]
      if (first === undefined || first.heapTime > now) return
      if (first.deadline <= now) first.onTimer(now)
      if (first.heapIndex < 0) continue
      if (first.deadline === NEVER) this.remove(first)
      else {
        // What is due again at once waits for the next turn, or this would never end.
        first.heapTime = Math.max(first.deadline, now + 0.001)
        this.#sink(first)
      }
    }
  }

  #rise(entry: HeapEntry): void {
    const heap = this.#heap
    let i = entry.heapIndex
    while (i > 0) {
      const parent = heap[(i - 1) >> 1]!
      if (parent.heapTime <= entry.heapTime) break
      heap[i] = parent
      parent.heapIndex = i
      i = (i - 1) >> 1
    }
    heap[i] = entry
    entry.heapIndex = i
  }

  #sink(entry: HeapEntry): void {
    const heap = this.#heap
    let i = entry.heapIndex
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]!.heapTime < heap[child]!.heapTime) child++
      if (heap[child]!.heapTime >= entry.heapTime) break
      heap[i] = heap[child]!
      heap[i]!.heapIndex = i
      i = child
    }
    heap[i] = entry
    entry.heapIndex = i
  }
}
