import { existsSync } from 'node:fs'

/** Debian's Chromium, or the one that SHALLOT_CHROMIUM names; null where there is none. */
export function chromiumPath(): string | null {
  const named = process.env.SHALLOT_CHROMIUM
  if (named !== undefined && named !== '') return named
  return ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => existsSync(path)) ?? null
}

/** The pages by the name in their address. */
export const PAGES = ['overview', 'circuits', 'streams', 'network', 'reachability', 'serving', 'settings', 'logs'] as const
