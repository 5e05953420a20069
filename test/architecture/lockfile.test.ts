import { expect, test } from 'vitest'
import { read } from '../support/repository.ts'

interface Lockfile {
  readonly packages: Readonly<Record<string, { readonly dependencies?: Readonly<Record<string, string>> }>>
}

// Debian 12's npm is 9.2.0, which can't load a lockfile in which an override puts another package ("npm:…") in a dependency's place: "Invalid comparator"
// (npm/cli#5955), told as if there were no lockfile. A lockfile that leaves the dependency out is the same to every npm, and needs no override to be read.
test('no package of the lockfile has a dependency that an override replaces by another package', () => {
  const { overrides } = JSON.parse(read('package.json')) as { readonly overrides: Readonly<Record<string, string>> }
  const replaced = Object.entries(overrides).flatMap(([name, by]) => (by.startsWith('npm:') ? [name] : []))
  expect(replaced).toContain('react-native-webrtc')
  const { packages } = JSON.parse(read('package-lock.json')) as Lockfile
  const found = Object.entries(packages).flatMap(([path, { dependencies = {} }]) =>
    replaced.filter((name) => name in dependencies || path.endsWith(`node_modules/${name}`)).map((name) => `${path}: ${name}`),
  )
  expect(found, 'delete these lines and the packages of these names from package-lock.json').toEqual([])
})
