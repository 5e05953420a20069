/**
 * Loaded before a program (`node --import`): the process kills itself at a step of what it does to files. CRASH_AT counts the steps from 1; CRASH_HOW is
 * `before` the step, in the `middle` (half of the bytes of a write), or `after` it. With CRASH_LOG the number of steps is written there at the end.
 */
import { appendFileSync, promises, writeSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'

const at = Number(process.env.CRASH_AT ?? 0)
const how = process.env.CRASH_HOW ?? 'before'
const under = process.env.CRASH_UNDER ?? ''
let steps = 0

function die(): never {
  process.kill(process.pid, 'SIGKILL')
  // The signal is on its way: nothing more is done.
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
}

type Call = (...args: never[]) => Promise<unknown>

function stepping(
  call: Call,
  isOurs: (self: unknown, args: readonly unknown[]) => boolean,
  half?: (self: unknown, args: readonly unknown[]) => void,
) {
  return async function (this: unknown, ...args: never[]): Promise<unknown> {
    if (!isOurs(this, args)) return call.apply(this, args)
    const isNow = ++steps === at
    if (isNow && how === 'before') die()
    if (isNow && how === 'middle') {
      half?.(this, args)
      die()
    }
    try {
      return await call.apply(this, args)
    } finally {
      if (isNow) die()
    }
  }
}

const inFolder = (_: unknown, args: readonly unknown[]): boolean => args.some((arg) => typeof arg === 'string' && arg.startsWith(under))
const target = promises as unknown as Record<string, Call>
for (const name of ['rename', 'rm', 'link', 'mkdir', 'chmod', 'unlink']) target[name] = stepping(target[name]!, inFolder)
target.writeFile = stepping(target.writeFile!, inFolder)

const opened = new WeakSet<object>()
const open = target.open!
let isPatched = false
target.open = async function (this: unknown, ...args: never[]) {
  const isOurs = inFolder(null, args)
  const file = (await (isOurs ? stepping(open, inFolder).apply(this, args) : open.apply(this, args))) as object
  if (!isOurs) return file
  opened.add(file)
  if (!isPatched) {
    isPatched = true
    const methods = Object.getPrototypeOf(file) as Record<string, Call>
    const isOpened = (self: unknown): boolean => opened.has(self as object)
    methods.writeFile = stepping(methods.writeFile!, isOpened, (self, [bytes]) => {
      const all = typeof bytes === 'string' ? Buffer.from(bytes) : (bytes as Uint8Array)
      writeSync((self as { fd: number }).fd, all.subarray(0, Math.floor(all.length / 2)))
    })
    methods.sync = stepping(methods.sync!, isOpened)
    methods.close = stepping(methods.close!, isOpened)
  }
  return file
} as Call
syncBuiltinESMExports()

process.on('exit', () => {
  if (process.env.CRASH_LOG) appendFileSync(process.env.CRASH_LOG, `${steps}\n`)
})
