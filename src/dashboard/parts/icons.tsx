import type { ComponentChildren, JSX } from 'preact'

/** Drawn here, so that nothing is fetched. All are decoration: the word beside them says what they mean. */
function Icon({ children }: { readonly children: ComponentChildren }): JSX.Element {
  return (
    <svg
      class="icon"
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="1.75"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  )
}

/** The mark of Shallot. */
export function Mark(): JSX.Element {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <path class="mark-outer" d="M16 2c1 5 11 8 11 17a11 11 0 0 1-22 0C5 10 15 7 16 2z" />
      <path class="mark-middle" d="M16 8c.8 4 7 6 7 12a7 7 0 0 1-14 0c0-6 6.2-8 7-12z" />
      <path class="mark-inner" d="M16 14c.6 2.6 3.6 3.8 3.6 7a3.6 3.6 0 0 1-7.2 0c0-3.2 3-4.4 3.6-7z" />
    </svg>
  )
}

const SHAPES = {
  overview: <path d="M3 12h4l3-8 4 16 3-8h4" />,
  circuits: (
    <>
      <circle cx="5" cy="12" r="2" />
      <circle cx="12" cy="5" r="2" />
      <circle cx="19" cy="12" r="2" />
      <path d="m6.5 10.5 4-4m3 0 4 4" />
    </>
  ),
  streams: <path d="M4 7h11m-3-3 3 3-3 3M20 17H9m3-3-3 3 3 3" />,
  network: (
    <>
      <circle cx="12" cy="12" r="9" />
      <path d="M3 12h18M12 3c3 3 3 15 0 18-3-3-3-15 0-18z" />
    </>
  ),
  reachability: <path d="M12 20h.01M8.5 16.4a5 5 0 0 1 7 0M5 12.9a10 10 0 0 1 14 0M2 9.5a15 15 0 0 1 20 0" />,
  serving: (
    <>
      <rect x="3" y="4" width="18" height="6" rx="1.5" />
      <rect x="3" y="14" width="18" height="6" rx="1.5" />
      <path d="M7 7h.01M7 17h.01" />
    </>
  ),
  settings: (
    <>
      <path d="M4 7h9m4 0h3M4 17h3m4 0h9" />
      <circle cx="15" cy="7" r="2" />
      <circle cx="9" cy="17" r="2" />
    </>
  ),
  logs: <path d="M5 6h14M5 12h14M5 18h9" />,
  refresh: <path d="M20 11a8 8 0 1 0-1 5M20 4v7h-7" />,
  menu: <path d="M4 7h16M4 12h16M4 17h16" />,
  close: <path d="m6 6 12 12M18 6 6 18" />,
  sun: (
    <>
      <circle cx="12" cy="12" r="4" />
      <path d="M12 2v2m0 16v2M4.9 4.9l1.4 1.4m11.4 11.4 1.4 1.4M2 12h2m16 0h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4" />
    </>
  ),
  moon: <path d="M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z" />,
  system: (
    <>
      <rect x="3" y="4" width="18" height="12" rx="2" />
      <path d="M8 20h8m-4-4v4" />
    </>
  ),
  laptop: (
    <>
      <rect x="5" y="5" width="14" height="10" rx="1.5" />
      <path d="M2.5 19h19" />
    </>
  ),
  server: (
    <>
      <rect x="4" y="4" width="16" height="7" rx="1.5" />
      <rect x="4" y="13" width="16" height="7" rx="1.5" />
      <path d="M8 7.5h.01M8 16.5h.01" />
    </>
  ),
  shield: <path d="M12 3 5 6v5c0 5 3 8 7 10 4-2 7-5 7-10V6z" />,
  warning: <path d="M12 4 2.5 20h19zM12 10v4m0 3h.01" />,
  check: <path d="m5 12 5 5L19 7" />,
  pause: <path d="M9 5v14M15 5v14" />,
  play: <path d="M7 5v14l12-7z" />,
  search: (
    <>
      <circle cx="11" cy="11" r="6" />
      <path d="m20 20-4.5-4.5" />
    </>
  ),
  copy: (
    <>
      <rect x="9" y="9" width="11" height="11" rx="2" />
      <path d="M5 15H4.5A1.5 1.5 0 0 1 3 13.5v-9A1.5 1.5 0 0 1 4.5 3h9A1.5 1.5 0 0 1 15 4.5V5" />
    </>
  ),
  offline: (
    <path d="M3 3l18 18M8.5 16.4a5 5 0 0 1 7 0M5 12.9A10 10 0 0 1 9 10.4M2 9.5a15 15 0 0 1 4-2.7m5-1.2A15 15 0 0 1 22 9.5M12 20h.01" />
  ),
} as const

export type IconName = keyof typeof SHAPES

/** One of the drawings above. */
export function Draw({ name }: { readonly name: IconName }): JSX.Element {
  return <Icon>{SHAPES[name]}</Icon>
}
