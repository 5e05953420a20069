import { Fragment, type JSX } from 'preact'

/** A name or an address in whose parts no line may end: only before a dot of a name, a slash, or the colon of a port. */
export function Breakable({ text }: { readonly text: string }): JSX.Element {
  return (
    <>
      {text.split(/(?=\/)|(?=:\d+\b)|(?=\.[a-z])/i).map((part, i) => (
        <Fragment key={i}>
          {i === 0 ? null : <wbr />}
          {part}
        </Fragment>
      ))}
    </>
  )
}
