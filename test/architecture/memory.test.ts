import { describe, expect, test } from 'vitest'
import { codeOf, importsOf, read, repositoryFiles } from '../support/repository.ts'

/** Packages that only some nodes need, or only tests: loaded by `await import` there, or not at all. docs/decisions/2026-11-20-memory-of-a-node.md */
const heavy = ['@libp2p/tls', '@libp2p/webrtc', '@libp2p/circuit-relay-v2', 'node-datachannel', 'koffi', 'mmdb-lib']
/** Builtins of which an `import` takes every export, the lazy ones too: undici and HTTP/2, 12 MB at the start. */
const greedy = ['node:http', 'node:https', 'http', 'https']

/** What of `specifiers` is imported for its values, dynamically or not. */
function importers(files: readonly string[], specifiers: readonly string[]): string[] {
  return files
    .flatMap(importsOf)
    .filter((one) => !one.typeOnly && specifiers.includes(one.specifier))
    .map((one) => `${one.file}:${one.line} imports ${one.specifier}`)
}

/** The files of the program that `file` loads when it is loaded itself: through static imports only. */
function loadedWith(file: string): string[] {
  const seen = new Set([file])
  for (const at of seen) {
    for (const { target, typeOnly, line } of importsOf(at)) {
      if (target === null || typeOnly || !target.endsWith('.ts') || isDynamic(at, line)) continue
      seen.add(target)
    }
  }
  return [...seen]
}

function isDynamic(file: string, line: number): boolean {
  return /\bimport\(/.test(codeOf(file).split('\n')[line - 1]!)
}

describe('what a running node loads', () => {
  const loaded = loadedWith('src/cli/commands/run.ts')

  test('holds none of the packages that few nodes need', () => {
    const found = loaded.flatMap((file) =>
      importsOf(file)
        .filter((one) => !one.typeOnly && !isDynamic(file, one.line))
        .filter((one) => heavy.some((name) => one.specifier === name || one.specifier.startsWith(`${name}/`)))
        .map((one) => `${file}:${one.line} loads ${one.specifier} at once: use \`await import\` where it is needed`),
    )
    expect(found).toEqual([])
  })

  test('holds no more of what clients and exits alone do than its settings', () => {
    const rooms = /^src\/(ingress|egress|vpn|client|netstack|dns|tun)\//
    const settings = /\/(config|isolation|listen-address|policy)\.ts$/
    expect(loaded.filter((file) => rooms.test(file) && !settings.test(file))).toEqual([])
  })

  test('holds, for an exit, no netstack before a client asks for raw packets', () => {
    const exit = loadedWith('src/egress/index.ts')
    expect(exit).toContain('src/egress/packets/netstack-backend.ts')
    expect(exit.filter((file) => /^src\/netstack\/|^src\/egress\/packets\/(netstack-lease|ping)/.test(file))).toEqual([])
  })

  test('takes node:http by process.getBuiltinModule, which leaves its lazy parts alone', () => {
    expect(
      importers(
        repositoryFiles().filter((file) => /^(src|bootstrap|relay|exit)\/.*\.ts$/.test(file)),
        greedy,
      ),
    ).toEqual([])
  })

  test('the test follows imports and knows a dynamic one', () => {
    expect(loaded).toContain('src/link/host.ts')
    expect(loaded).toContain('src/nat/index.ts')
    expect(loaded).not.toContain('src/cli/commands/testnet.ts')
    expect(read('src/cli/program.ts')).toContain("await import('./commands/run.ts')")
    expect(loadedWith('src/cli/program.ts')).not.toContain('src/cli/commands/run.ts')
    expect(importers(['test/unit/link/libp2p-tls.test.ts'], ['@libp2p/tls'])).toHaveLength(1)
  })
})
