import { signal } from '@preact/signals'
import { useEffect } from 'preact/hooks'

/** One clock for the page: ages move together, and only while something shows them. */
const now = signal(Date.now())
let users = 0
let timer: ReturnType<typeof setInterval> | undefined

/** The time, moving on once a second. */
export function useNow(): number {
  useEffect(() => {
    users += 1
    if (users === 1) {
      now.value = Date.now()
      timer = setInterval(() => {
        if (document.visibilityState === 'visible') now.value = Date.now()
      }, 1000)
    }
    return () => {
      users -= 1
      if (users === 0) clearInterval(timer)
    }
  }, [])
  return now.value
}
