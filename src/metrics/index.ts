export { BYTES_STEP, COUNT_STEP, METRICS, type Metric } from './definitions.ts'
export { PAGE_AGE_MS } from './page.ts'
export type { MetricsOptions, MetricsServer } from './server.ts'
export { startMetrics } from './start.ts'
