import { chmod, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
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

/** Listens on a unix socket that only this user may open. @throws ShallotError 'socket-path-too-long', 'listen-failed' */
export async function listenOn(server: Server, path: string, key: string): Promise<void> {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    const message = `${key}: the socket's path ${path} is longer than the ${MAX_SOCKET_PATH_BYTES} bytes a system allows; use a shorter directory, or 127.0.0.1:PORT`
    throw new ShallotError('socket-path-too-long', message, { kind: 'config', retry: 'never' })
  }
  // The directory is this process's alone (its lock is held): a socket that lies there is left over.
  await rm(path, { force: true })
  await listening(server, { path }, key, path)
  await chmod(path, 0o600)
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
