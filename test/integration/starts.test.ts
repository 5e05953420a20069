import { afterAll, beforeAll, expect, test } from 'vitest'
import { controlOf } from '../bench/network.ts'
import { runOk, startTestnet } from '../support/processes.ts'
import { startWebServer, type WebServer } from '../support/web-server.ts'

// How often a start-up and a circuit build succeed. `npm test` takes a few; SHALLOT_SOAK=1 takes 20 start-ups and 500 builds.

const full = process.env.SHALLOT_SOAK !== undefined
const starts = full ? 20 : 2
const builds = full ? 500 : 60
const needed = 0.99

let web: WebServer

beforeAll(async () => {
  web = await startWebServer()
})

afterAll(async () => {
  await web.close()
})

test(`${starts} separate start-ups carry traffic`, { timeout: starts * 60_000 }, async () => {
  const failures: string[] = []
  const seconds: number[] = []
  for (let i = 0; i < starts; i++) {
    const began = performance.now()
    try {
      const testnet = await startTestnet()
      seconds.push((performance.now() - began) / 1000)
      try {
        await runOk('curl', ['-sSf', '--max-time', '10', '-x', `socks5h://${testnet.ready.socks}`, `${web.url}/started`])
      } finally {
        await testnet.stop()
      }
    } catch (error) {
      failures.push(String(error))
    }
  }
  console.log(`start-ups took ${seconds.map((one) => one.toFixed(1)).join(', ')} s`)
  expect(failures.length, failures.join('\n')).toBeLessThanOrEqual(starts * (1 - needed))
})

test(`${builds} circuits built one after another`, { timeout: 60_000 + builds * 1000 }, async () => {
  const testnet = await startTestnet()
  try {
    const control = controlOf(testnet)
    const before = (await control.status()).client!
    const failures: string[] = []
    for (let i = 0; i < builds; i++) {
      try {
        const circuit = await control.newCircuit()
        expect(circuit.state).toBe('open')
        expect(circuit.path.every((hop) => hop.established)).toBe(true)
      } catch (error) {
        failures.push(String(error))
      }
    }
    expect(failures.length, failures.slice(0, 5).join('\n')).toBeLessThanOrEqual(builds * (1 - needed))
    // Retries that hid failures count as well.
    const after = (await control.status()).client!
    const failed = after.circuitsFailed - before.circuitsFailed
    expect(failed).toBeLessThanOrEqual((after.circuitsBuilt - before.circuitsBuilt + failed) * (1 - needed))
  } finally {
    await testnet.stop()
  }
})
