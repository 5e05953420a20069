import type { JSX } from 'preact'
import { Notice } from './states.tsx'

/** That a node may not write its own file, and what to do instead. */
export function NotWritable({ file }: { readonly file: string }): JSX.Element {
  return (
    <Notice kind="info">
      The node may not write its settings file, so nothing can be changed from here. Edit <span class="mono">{file}</span> as its owner;
      then “Read the file again”, on the page Settings, puts it in force.
    </Notice>
  )
}
