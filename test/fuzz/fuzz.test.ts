import { describe, expect, it } from 'vitest'
import { messageOf, toHex } from '../../src/base/index.ts'
import { type FuzzTarget, fuzz } from './fuzzer.ts'
import { targets } from './targets.ts'

const ITERATIONS = 10_000
const seed = Number(process.env.SHALLOT_FUZZ_SEED ?? Date.now() % 0x1_0000_0000)

describe(`decoders given ${ITERATIONS} random and mutated inputs (SHALLOT_FUZZ_SEED=${seed})`, () => {
  for (const target of targets) {
    it(`${target.name} throws nothing but its refusal`, { timeout: 120_000 }, () => {
      const { failure } = fuzz(target, ITERATIONS, seed)
      if (failure) throw new Error(`${messageOf(failure.thrown)}\ninput: ${toHex(failure.input)}`, { cause: failure.thrown })
    })
  }
})

describe('the fuzzer', () => {
  it('finds a decoder that throws something else', () => {
    const careless: FuzzTarget = {
      name: 'careless',
      decode: (bytes) => {
        if (bytes.length > 0 && bytes[0]! > bytes.length) throw new RangeError('index')
      },
      seeds: () => [Uint8Array.of(2, 1, 1)],
    }
    expect(fuzz(careless, 1000, 1).failure?.thrown).toBeInstanceOf(RangeError)
  })

  it('finds one that keeps more and more memory', () => {
    const kept: Uint8Array[] = []
    const hoarder: FuzzTarget = {
      name: 'hoarder',
      decode: () => void kept.push(new Uint8Array(10_000)),
      seeds: () => [],
      mostGrowthMegabytes: 5,
    }
    expect(String(fuzz(hoarder, 1000, 1).failure?.thrown)).toContain('more in use')
    expect(fuzz({ ...hoarder, decode: () => new Uint8Array(10_000) }, 1000, 1).failure).toBeNull()
  })

  it('replays from its seed', () => {
    const inputs = (): string[] => {
      const all: string[] = []
      fuzz({ name: 'seen', decode: (bytes) => void all.push(toHex(bytes)), seeds: () => [Uint8Array.of(1, 2, 3)] }, 50, 7)
      return all
    }
    expect(inputs()).toEqual(inputs())
  })
})
