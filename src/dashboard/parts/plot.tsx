import type { JSX } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import { clock } from '../format.ts'
import { colour, colours } from '../theme.ts'

/** One line of a plot. */
export interface Line {
  readonly name: string
  /** A colour of the style sheet. */
  readonly colour: string
  readonly values: readonly (number | null)[]
}

const HEIGHT = 150

/** Steps between ticks that are round in their unit. */
const STEPS = {
  count: [1, 2, 5].flatMap((n) => Array.from({ length: 12 }, (_, power) => n * 10 ** power)).sort((a, b) => a - b),
  bytes: Array.from({ length: 50 }, (_, power) => 2 ** power),
  ms: [1, 2, 5].flatMap((n) => Array.from({ length: 7 }, (_, power) => n * 10 ** power)).sort((a, b) => a - b),
} as const

/** Lines over time. What they show is said in words too: a canvas says nothing to who cannot see it. */
export function Plot(props: {
  readonly label: string
  /** Milliseconds since 1970, rising. */
  readonly times: readonly number[]
  readonly lines: readonly Line[]
  /** How a value is written. */
  readonly show: (value: number) => string
  readonly unit: keyof typeof STEPS
  readonly bars?: boolean
  /** How a time is written. */
  readonly when?: (at: number) => string
  readonly height?: number
}): JSX.Element {
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | null>(null)
  const { times, lines, show, unit, bars = false, when = clock, height = HEIGHT } = props
  const palette = colours.value
  const data = [times.map((at) => at / 1000), ...lines.map(({ values }) => values)] as uPlot.AlignedData
  const shape = lines.map(({ name, colour: of }) => `${name}:${of}`).join()

  // what changes each second goes in by setData below
  useEffect(() => {
    const element = place.current!
    const drawn = new uPlot(options(element.clientWidth || 300, height, lines, show, STEPS[unit], when, bars), data, element)
    plot.current = drawn
    const size = new ResizeObserver(() => drawn.setSize({ width: element.clientWidth || 300, height }))
    size.observe(element)
    return () => {
      size.disconnect()
      drawn.destroy()
      plot.current = null
    }
  }, [palette, shape])

  useEffect(() => plot.current?.setData(data))

  return <div class="plot" ref={place} role="img" aria-label={props.label} />
}

function options(
  width: number,
  height: number,
  lines: readonly Line[],
  show: (value: number) => string,
  steps: readonly number[],
  when: (at: number) => string,
  bars: boolean,
): uPlot.Options {
  const grid = { stroke: colour('plot-grid'), width: 1 }
  const text = { stroke: colour('ink-soft'), font: `11px ${colour('font')}`, ticks: { show: false } }
  return {
    width,
    height,
    // The last time of the axis has half its width right of its place.
    padding: [8, 28, 0, 0],
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    legend: { show: true, live: true },
    scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(max ?? 0, 1) * 1.1] } },
    axes: [
      { ...text, grid: { show: false }, size: 24, space: 90, values: (_, at) => at.map((s) => when(s * 1000)) },
      { ...text, grid, size: 66, space: 34, incrs: [...steps], values: (_, values) => values.map(show) },
    ],
    series: [
      { label: '', value: (_, s) => (s === null ? 'Now' : when(s * 1000)) },
      ...lines.map((line, i): uPlot.Series => {
        const stroke = colour(line.colour)
        return {
          label: line.name,
          stroke,
          width: 1.75,
          // One area, or their colours mix.
          ...(bars ? { fill: stroke } : i === 0 ? { fill: `${stroke}1f` } : {}),
          points: { show: false },
          spanGaps: false,
          value: (plot, value, at, pointed) => {
            // Nothing is pointed at: the newest.
            // A bar of nothing is not drawn, and is 0.
            const shown = pointed === null ? plot.data[at]?.at(-1) : value
            return shown == null ? (bars ? show(0) : '–') : show(shown)
          },
          ...(bars ? { paths: uPlot.paths.bars!({ size: [0.7, 12], radius: 0.3 }) } : {}),
        }
      }),
    ],
  }
}
