import { signal } from '@preact/signals'
import { useEffect } from 'preact/hooks'

/** A difference between the node's clock and this one that is taken for one; below it is the way of the event. */
const CLOCKS_DIFFER_MS = 2000
let aheadMs = 0

/** What the node's clock says now. Ages are counted by it: the browser may be on another machine. */
export function nodeSays(at: number): void {
  const ahead = at - Date.now()
  if (Math.abs(ahead - aheadMs) < CLOCKS_DIFFER_MS) return
  aheadMs = Math.abs(ahead) < CLOCKS_DIFFER_MS ? 0 : ahead
  now.value = Date.now() + aheadMs
}

/** One clock for the page: ages move together, and only while something shows them. */
const now = signal(Date.now())
let users = 0
let timer: ReturnType<typeof setInterval> | undefined

/** The node's time, moving on once a second. */
export function useNow(): number {
  useEffect(() => {
    users += 1
    if (users === 1) {
      now.value = Date.now() + aheadMs
      timer = setInterval(() => {
        if (document.visibilityState === 'visible') now.value = Date.now() + aheadMs
      }, 1000)
    }
    return () => {
      users -= 1
      if (users === 0) clearInterval(timer)
    }
  }, [])
  return now.value
}
