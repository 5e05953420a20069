import { effect, signal } from '@preact/signals'

/** What the person chose; `system` follows prefers-color-scheme. */
export type Theme = 'system' | 'light' | 'dark'

const KEY = 'shallot-theme'
const THEMES: readonly Theme[] = ['system', 'light', 'dark']
const dark = matchMedia('(prefers-color-scheme: dark)')
const systemDark = signal(dark.matches)

/** The choice. */
export const theme = signal<Theme>(THEMES.find((known) => known === localStorage.getItem(KEY)) ?? 'system')

/** Rises when the colours change, so that what is drawn on a canvas is drawn anew. */
export const colours = signal(0)

/** Follows the choice and the system from now on. */
export function startTheme(): void {
  dark.addEventListener('change', () => {
    systemDark.value = dark.matches
  })
  effect(() => {
    const wanted = theme.value === 'system' ? (systemDark.value ? 'dark' : 'light') : theme.value
    document.documentElement.dataset.theme = wanted
    localStorage.setItem(KEY, theme.value)
    colours.value = colours.peek() + 1
  })
}

/** The one after it: system, light, dark, system. */
export function nextTheme(): void {
  theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!
}

/** A colour of the style sheet as it is now. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
}
