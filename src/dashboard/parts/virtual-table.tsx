// biome-ignore-all lint/a11y/useSemanticElements: rows that are placed where they belong cannot be laid out as those of a <table>
// biome-ignore-all lint/a11y/useFocusableInteractive: rows and cells of a table are read, not operated
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'

/** A column of a table. */
export interface Column<T> {
  readonly name: string
  /** Of the class `col-…`, which says how wide it is and where it is left out. */
  readonly key: string
  readonly cell: (row: T) => ComponentChildren
  /** Numbers stand at the right. */
  readonly number?: boolean
}

/** Rows above and below what is seen, so that scrolling shows no gap. */
const SPARE_ROWS = 6

/** A table of any length, of which only the rows in sight are there. */
export function VirtualTable<T>(props: {
  readonly label: string
  /** Names the table in the style sheet. */
  readonly kind: string
  readonly rows: readonly T[]
  readonly columns: readonly Column<T>[]
  readonly keyOf: (row: T) => string | number
  readonly rowHeight?: number
  readonly empty: ComponentChildren
  readonly follow?: boolean
}): JSX.Element {
  const { rows, columns, keyOf, kind, rowHeight = 40 } = props
  const box = useRef<HTMLDivElement>(null)
  const [scroll, setScroll] = useState({ top: 0, height: 480 })

  useEffect(() => {
    const element = box.current!
    let frame = 0
    const look = (): void => {
      frame = 0
      setScroll((before) => {
        const next = { top: element.scrollTop, height: element.clientHeight }
        return before.top === next.top && before.height === next.height ? before : next
      })
    }
    const soon = (): void => {
      if (frame === 0) frame = requestAnimationFrame(look)
    }
    element.addEventListener('scroll', soon, { passive: true })
    const size = new ResizeObserver(soon)
    size.observe(element)
    return () => {
      element.removeEventListener('scroll', soon)
      size.disconnect()
      cancelAnimationFrame(frame)
    }
  }, [])

  // The newest is at the end: it stays in sight as long as nobody scrolled away from it.
  const last = rows.length === 0 ? '' : keyOf(rows.at(-1)!)
  useEffect(() => {
    const element = box.current!
    if (props.follow === true) element.scrollTop = element.scrollHeight
  }, [last, props.follow])

  const first = Math.max(0, Math.floor(scroll.top / rowHeight) - SPARE_ROWS)
  const end = Math.min(rows.length, Math.ceil((scroll.top + scroll.height) / rowHeight) + SPARE_ROWS)

  return (
    <div class={`table table-${kind}`} role="table" aria-label={props.label} aria-rowcount={rows.length + 1}>
      <div role="rowgroup" class="table-head">
        <div role="row" class="table-row" aria-rowindex={1}>
          {columns.map(({ key, name, number }) => (
            <span role="columnheader" key={key} class={`col-${key} ${number ? 'number' : ''}`}>
              {name}
            </span>
          ))}
        </div>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by the keyboard */}
      <div role="rowgroup" class="table-body" ref={box} tabIndex={0} aria-label={`${props.label}: rows`}>
        {rows.length === 0 ? (
          <div role="row" class="table-none">
            <div role="cell">{props.empty}</div>
          </div>
        ) : (
          <div role="presentation" class="table-space" style={{ height: `${rows.length * rowHeight}px` }}>
            {rows.slice(first, end).map((row, i) => (
              <div
                role="row"
                class={`table-row ${(first + i) % 2 === 1 ? 'odd' : ''}`}
                aria-rowindex={first + i + 2}
                key={keyOf(row)}
                style={{ transform: `translateY(${(first + i) * rowHeight}px)`, height: `${rowHeight}px` }}
              >
                {columns.map(({ key, cell, number }) => (
                  <span role="cell" key={key} class={`col-${key} ${number ? 'number' : ''}`}>
                    {cell(row)}
                  </span>
                ))}
              </div>
            ))}
          </div>
        )}
      </div>
    </div>
  )
}
