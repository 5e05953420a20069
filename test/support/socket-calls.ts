/** What a traced program did with sockets, read from strace's output, and what of it was not allowed. */

/** Put before a command to trace it and its children into a file. Names of files tell lookups that need no socket. */
export function straceWrapper(file: string): readonly string[] {
  return ['strace', '-f', '-qq', '-s', '0', '-e', 'trace=network,openat', '-o', file]
}

export interface SocketCall {
  readonly call: string
  /** "ADDRESS:PORT", or a path for a unix socket. */
  readonly to: string
}

/** Every address that a connect or a send named. */
export function outgoingCalls(trace: string): readonly SocketCall[] {
  const found: SocketCall[] = []
  for (const line of trace.split('\n')) {
    const call = /^\d+\s+(connect|sendto|sendmsg|sendmmsg)\(/.exec(line)?.[1]
    if (call === undefined) continue
    const internet = /sin6?_port=htons\((\d+)\).*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")/
    for (const [, port, v4, v6] of line.matchAll(new RegExp(internet, 'g'))) found.push({ call, to: `${v4 ?? `[${v6}]`}:${port}` })
    const path = /sun_path=@?"([^"]*)"/.exec(line)?.[1]
    if (path !== undefined) found.push({ call, to: path })
  }
  return found
}

/** Files that only a name lookup reads (the C library's, nsswitch.conf(5)). */
const lookupFiles = /openat\([^"]*"(\/etc\/hosts|\/etc\/host\.conf|\/etc\/gai\.conf|[^"]*\/libnss_[a-z]+\.so[^"]*)"/

/** One line for each thing in the trace that is not a connection to one of `allowed` ("ADDRESS:PORT"); empty when all is well. */
export function strayCalls(trace: string, allowed: ReadonlySet<string>): readonly string[] {
  const stray = outgoingCalls(trace)
    .filter(({ to }) => !allowed.has(to))
    .map(({ call, to }) => `${call} to ${to}`)
  for (const line of trace.split('\n')) {
    const file = lookupFiles.exec(line)?.[1]
    if (file !== undefined) stray.push(`a name was looked up: ${file} was read`)
  }
  return [...new Set(stray)]
}
