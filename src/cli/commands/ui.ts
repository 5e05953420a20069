import { spawn } from 'node:child_process'
import { complain, say, sayJson } from '../output.ts'
import { findNode, type NodeChoice } from '../places.ts'

/** A program that opens links gives up its work to the browser at once; one that has not by then is left alone. */
const OPEN_LIMIT_MS = 5_000

export interface UiOptions extends NodeChoice {
  readonly print?: boolean
  readonly json?: boolean
}

/** `shallot ui` */
export async function ui(options: UiOptions): Promise<number> {
  const link = await (await findNode(options)).dashboardLink()
  if (options.json) {
    sayJson(link)
    return 0
  }
  if (!options.print && hasDesktop() && (await open(link.url))) {
    say(`The dashboard opens in your browser: ${new URL('/', link.url)}`)
    return 0
  }
  say(link.url)
  if (process.stdout.isTTY) complain('Open it in a browser on this machine; it works once, within two minutes.')
  return 0
}

/** Whether there is somewhere to open a window; over ssh that would be somebody else's screen. */
function hasDesktop(): boolean {
  const { DISPLAY, WAYLAND_DISPLAY, SSH_CONNECTION, BROWSER } = process.env
  if (process.platform === 'darwin') return !SSH_CONNECTION
  return Boolean(BROWSER) || (Boolean(DISPLAY || WAYLAND_DISPLAY) && !SSH_CONNECTION)
}

/** The link is an argument of its own, never part of a command line. False when nothing opened it. */
function open(url: string): Promise<boolean> {
  const program = process.platform === 'darwin' ? 'open' : 'xdg-open'
  return new Promise((done) => {
    const child = spawn(program, [url], { stdio: 'ignore', detached: true })
    const timer = setTimeout(() => done(true), OPEN_LIMIT_MS)
    const settle = (opened: boolean): void => {
      clearTimeout(timer)
      done(opened)
    }
    child.once('error', () => settle(false))
    child.once('exit', (code) => settle(code === 0))
    child.unref()
  })
}
