import type { Stats } from 'node:fs'
import { chmod, lstat, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { formatHostPort, messageOf, ShallotError } from '../base/index.ts'
import { isErrno } from '../store/index.ts'

/** Longest path of a unix socket (unix(7): 108 bytes with the zero at its end). */
const MAX_SOCKET_PATH_BYTES = 107

/**
 * Listens on an address of this machine; gives it with the port that it got.
 * @param key the configuration's key, for messages
 * @throws ShallotError 'address-in-use', 'listen-failed'
 */
export async function listenAt(server: Server, where: { readonly host: string; readonly port: number }, key: string): Promise<string> {
  await listening(server, { ...where, exclusive: true }, key, formatHostPort(where.host, where.port))
  const bound = server.address() as AddressInfo
  return formatHostPort(bound.address, bound.port)
}

/**
 * Listens on a unix socket that only this user may open. One of this user's that nobody answers on any more is replaced; nothing else ever is.
 * @throws ShallotError 'socket-path-too-long', 'address-in-use', 'listen-failed'
 */
export async function listenOn(server: Server, path: string, key: string): Promise<void> {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    const message = `${key}: the socket's path ${path} is longer than the ${MAX_SOCKET_PATH_BYTES} bytes a system allows; use a shorter directory, or 127.0.0.1:PORT`
    throw new ShallotError('socket-path-too-long', message, { kind: 'config', retry: 'never' })
  }
  await removeLeftOver(path, key)
  await listening(server, { path }, key, path)
  await chmod(path, 0o600)
}

/** Makes room: what lies there is removed when it is certain that it is of no use to anybody. @throws ShallotError */
async function removeLeftOver(path: string, key: string): Promise<void> {
  const there = await lstat(path).catch((error) => {
    if (isErrno(error, 'ENOENT')) return null
    throw listenError(key, path, error)
  })
  if (there === null) return
  if (!there.isSocket())
    throw occupied(`${key}: ${path} is ${whatIs(there)} and is not replaced; name a path where nothing is, such as unix:control.sock`)
  if (there.uid !== process.getuid?.())
    throw occupied(
      `${key}: ${path} is the socket of another user (${there.uid}) and is not replaced; remove it if nothing of theirs runs there`,
    )
  if (await isAnswered(path))
    throw new ShallotError('address-in-use', `${key}: on ${path} another node or program answers; stop it, or name another path`, {
      kind: 'host',
      retry: 'later',
    })
  await rm(path, { force: true })
}

/** Whether somebody listens on a socket. Only a refusal says that nobody does. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', (error) => resolve(!isErrno(error, 'ECONNREFUSED', 'ENOENT')))
  })
}

function whatIs(there: Stats): string {
  if (there.isFile()) return 'a file'
  if (there.isDirectory()) return 'a directory'
  return there.isSymbolicLink() ? 'a symbolic link' : 'no socket'
}

function occupied(message: string): ShallotError {
  return new ShallotError('listen-failed', message, { kind: 'config', retry: 'never' })
}

async function listening(server: Server, options: Parameters<Server['listen']>[0], key: string, where: string): Promise<void> {
  await new Promise<void>((done, fail) => {
    const failed = (error: Error): void => fail(listenError(key, where, error))
    server.once('error', failed)
    server.listen(options as object, () => {
      server.off('error', failed)
      done()
    })
  })
}

function listenError(key: string, where: string, error: unknown): ShallotError {
  if (isErrno(error, 'EADDRINUSE')) {
    return new ShallotError('address-in-use', `${key}: ${where} is in use by another program; choose another port`, {
      kind: 'host',
      retry: 'later',
      cause: error,
    })
  }
  return new ShallotError('listen-failed', `${key}: cannot listen on ${where}: ${messageOf(error)}`, {
    kind: 'host',
    retry: 'never',
    cause: error,
  })
}
