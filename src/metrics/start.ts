import type { NodeControl } from '../node/index.ts'
import type { MetricsOptions, MetricsServer } from './server.ts'

/**
 * Serves the node's metrics at /metrics of every address of `metrics.listen`: text for Prometheus, or OpenMetrics for who asks for it. Null where there
 * is no address: then nothing of it is loaded.
 * @throws ShallotError 'address-in-use', 'listen-failed'
 */
export async function startMetrics(node: Pick<NodeControl, 'status'>, options: MetricsOptions): Promise<MetricsServer | null> {
  if (options.config.metrics.listen.length === 0) return null
  const { serveMetrics } = await import('./server.ts')
  return serveMetrics(node, options)
}
