import { signal } from '@preact/signals'

/** The pages, in the order of the navigation. */
export const PAGES = [
  { path: 'overview', title: 'Overview' },
  { path: 'circuits', title: 'Circuits' },
  { path: 'streams', title: 'Streams' },
  { path: 'network', title: 'Network' },
  { path: 'reachability', title: 'Reachability' },
  { path: 'serving', title: 'Serving' },
  { path: 'settings', title: 'Settings' },
  { path: 'logs', title: 'Logs' },
] as const

export type PagePath = (typeof PAGES)[number]['path']

/** The page that is shown. */
export const page = signal<PagePath>(here())

function here(): PagePath {
  const path = location.hash.replace(/^#\/?/, '').split('?')[0]
  return PAGES.find((known) => known.path === path)?.path ?? 'overview'
}

addEventListener('hashchange', () => {
  page.value = here()
})
