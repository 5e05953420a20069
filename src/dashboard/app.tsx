import { signal } from '@preact/signals'
import type { ComponentType, JSX } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { connection } from './connection.ts'
import { status } from './node-state.ts'
import { CircuitsPage } from './pages/circuits.tsx'
import { LogsPage } from './pages/logs.tsx'
import { NetworkPage } from './pages/network.tsx'
import { OverviewPage } from './pages/overview.tsx'
import { ReachabilityPage } from './pages/reachability.tsx'
import { ServingPage } from './pages/serving.tsx'
import { SettingsPage } from './pages/settings.tsx'
import { SignedOutPage } from './pages/signed-out.tsx'
import { StreamsPage } from './pages/streams.tsx'
import { ConnectionBadge, ConnectionBanner } from './parts/connection-state.tsx'
import { Draw, Mark } from './parts/icons.tsx'
import { useResource } from './resource.ts'
import { PAGES, type PagePath, page } from './route.ts'
import { nextTheme, theme } from './theme.ts'

const VIEWS: Readonly<Record<PagePath, ComponentType>> = {
  overview: OverviewPage,
  circuits: CircuitsPage,
  streams: StreamsPage,
  network: NetworkPage,
  reachability: ReachabilityPage,
  serving: ServingPage,
  settings: SettingsPage,
  logs: LogsPage,
}

const menuOpen = signal(false)

/** The whole page: navigation, the state of the connection, and one of the pages. */
export function App(): JSX.Element {
  const state = connection.value
  return (
    <>
      <button type="button" class="skip" onClick={() => document.getElementById('main')?.focus()}>
        Skip to the content
      </button>
      {state.state === 'signed-out' ? <SignedOutPage why={state.why} /> : <Frame />}
    </>
  )
}

function Frame(): JSX.Element {
  const current = page.value
  const View = VIEWS[current]
  const main = useRef<HTMLElement>(null)
  const shown = useRef(current)
  const { title } = PAGES.find(({ path }) => path === current)!
  useResource(status)

  useEffect(() => {
    document.title = `${title} · Shallot`
    if (shown.current === current) return
    shown.current = current
    menuOpen.value = false
    // A new page begins at its top, for the eye and for the screen reader.
    scrollTo(0, 0)
    main.current?.focus({ preventScroll: true })
  }, [current, title])

  return (
    <div class="frame">
      <header class="side">
        <div class="brand">
          <a href="#/overview" class="brand-name">
            <Mark />
            Shallot
          </a>
          <ConnectionBadge />
          <button
            type="button"
            class="icon-button menu-button"
            aria-expanded={menuOpen.value}
            aria-controls="pages"
            aria-label="Pages"
            onClick={() => {
              menuOpen.value = !menuOpen.value
            }}
          >
            <Draw name={menuOpen.value ? 'close' : 'menu'} />
          </button>
        </div>
        <nav id="pages" class={menuOpen.value ? 'nav nav-open' : 'nav'} aria-label="Pages">
          <ul>
            {PAGES.map(({ path, title: name }) => (
              <li key={path}>
                <a href={`#/${path}`} aria-current={path === current ? 'page' : undefined}>
                  <Draw name={path} />
                  {name}
                </a>
              </li>
            ))}
          </ul>
          <ThemeButton />
        </nav>
      </header>
      <div class="content">
        <ConnectionBanner />
        <main id="main" ref={main} tabIndex={-1} aria-labelledby="page-title">
          <h1 id="page-title">{title}</h1>
          <View key={current} />
        </main>
      </div>
    </div>
  )
}

const THEME_NAMES = { system: 'as the system', light: 'light', dark: 'dark' } as const
const THEME_ICONS = { system: 'system', light: 'sun', dark: 'moon' } as const

function ThemeButton(): JSX.Element {
  return (
    <button type="button" class="theme-button" onClick={nextTheme} aria-label={`Colours: ${THEME_NAMES[theme.value]}. Change`}>
      <Draw name={THEME_ICONS[theme.value]} />
      Colours: {THEME_NAMES[theme.value]}
    </button>
  )
}
