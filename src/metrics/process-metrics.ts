import { counter, gauge, type Metric } from './metric.ts'

/** What Prometheus' own libraries say of a process and of Node, by their names, as far as an operator acts on it. */

const MIB = 1 << 20
const MILLISECOND = { step: 0.001 } as const
const mebibytes = { step: MIB } as const

export const PROCESS_METRICS: readonly Metric[] = [
  counter('process_cpu_seconds', 'CPU time of the process.', ({ runtime }) => runtime.cpuSeconds),
  gauge('process_start_time_seconds', 'When the process was started.', ({ runtime }) => Math.floor(runtime.startedAt / 1000)),
  gauge('process_resident_memory_bytes', 'Resident memory.', ({ runtime }) => runtime.rssBytes, mebibytes),
  gauge('process_open_fds', 'Open file descriptors: each connection is one.', ({ runtime }) => runtime.openFiles, { step: 8 }),
  gauge('process_max_fds', 'How many descriptors the process may have.', ({ runtime }) => runtime.maxFiles),
  gauge('process_open_resources', 'Handles and requests of the event loop.', ({ runtime }) => runtime.resources, { step: 8 }),
  gauge('nodejs_heap_size_used_bytes', "Memory in use by JavaScript's objects.", ({ runtime }) => runtime.heapUsedBytes, mebibytes),
  gauge('nodejs_heap_size_total_bytes', 'Memory that the heap has of the system.', ({ runtime }) => runtime.heapTotalBytes, mebibytes),
  gauge('nodejs_heap_size_limit_bytes', 'How large the heap may become.', ({ runtime }) => runtime.heapLimitBytes, mebibytes),
  gauge('nodejs_external_memory_bytes', 'Memory of buffers, outside the heap.', ({ runtime }) => runtime.externalBytes, mebibytes),
  gauge(
    'nodejs_eventloop_lag_p50_seconds',
    'How late the event loop came to a timer over a minute: half of the time at most so late.',
    ({ runtime }) => runtime.lag?.median,
    MILLISECOND,
  ),
  gauge('nodejs_eventloop_lag_p99_seconds', 'The same: 99 of 100 times at most so late.', ({ runtime }) => runtime.lag?.p99, MILLISECOND),
  gauge('nodejs_eventloop_lag_max_seconds', 'The same: the worst time.', ({ runtime }) => runtime.lag?.max, MILLISECOND),
  counter(
    'nodejs_eventloop_active_seconds',
    'How long the event loop was at work; its rate is the share of one processor that the one thread of the node has used.',
    ({ runtime }) => runtime.loopActiveSeconds,
  ),
  counter(
    'nodejs_gc_runs',
    'Collections of garbage.',
    ({ runtime }) => runtime.gc.map(({ kind, runs }) => ({ labels: { kind }, value: runs })),
    { labels: ['kind'] },
  ),
  counter(
    'nodejs_gc_duration_seconds',
    'How long they held up the node.',
    ({ runtime }) => runtime.gc.map(({ kind, seconds }) => ({ labels: { kind }, value: seconds })),
    { labels: ['kind'], step: 0.1 },
  ),
]
