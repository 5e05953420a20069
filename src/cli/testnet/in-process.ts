import { join } from 'node:path'
import { pino } from 'pino'
import { messageOf } from '../../base/index.ts'
import { createLogger, loadConfig } from '../../node/index.ts'
import { startServed } from '../serve.ts'
import type { NodeStarter } from './running-node.ts'

/** Nodes that are parts of this process; each logs to `log` in its folder. */
export const startInProcess: NodeStarter = async (plan) => {
  const config = await loadConfig(plan.config)
  const destination = pino.destination({ dest: join(plan.dir, 'log'), sync: true, mode: 0o600 })
  const ending = new AbortController()
  let stopping = false
  const node = await startServed(config, createLogger(config.log, destination), ending.signal)
  const { id, socks, http, control, dashboard } = node.status()
  return {
    plan,
    id,
    pid: process.pid,
    socks,
    http,
    control,
    dashboard,
    ready: () => node.control.ready(),
    circuits: async () => node.control.circuits(true),
    ended: node.control.stopped.then((failure) => (failure !== null ? messageOf(failure) : stopping ? null : 'it stopped by itself')),
    async stop() {
      stopping = true
      await node.close()
      ending.abort()
    },
  }
}
