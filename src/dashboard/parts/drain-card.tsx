import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import type { NodeStatus } from '../../control/api-types.ts'
import { useAct } from '../act.ts'
import { ask } from '../api.ts'
import { duration, moment, plural } from '../format.ts'
import { status } from '../node-state.ts'
import { useNow } from '../use-now.ts'
import { ActButton } from './act-button.tsx'
import { Badge, Card } from './card.tsx'
import { Notice } from './states.tsx'

/** Leaving without harm: no new circuits, an end when the last one has ended. Asked twice, as it ends the node. */
export function DrainCard({ node }: { readonly node: NodeStatus }): JSX.Element {
  const [asked, setAsked] = useState(false)
  const now = useNow()
  const act = useAct(async () => {
    await ask('POST /v1/drain', { body: {} })
    await status.reload()
  })
  const { draining } = node
  if (draining !== null) {
    return (
      <Card title="Leaving the network" aside={<Badge tone="busy">Leaving</Badge>}>
        <p>
          The node takes no new circuits. {plural(draining.circuitsLeft, 'circuit')} of others {draining.circuitsLeft === 1 ? 'is' : 'are'}{' '}
          left; it ends with the last one, and at {moment(draining.until)} in any case, in {duration(draining.until - now)}.
        </p>
      </Card>
    )
  }
  return (
    <Card title="Leaving the network">
      <p>Before an upgrade or a restart: the node says that it is leaving, takes no new circuits, and ends when the last one has ended.</p>
      {act.state.value.kind === 'failed' ? <Notice kind="bad">{act.state.value.error.message}</Notice> : null}
      {asked ? (
        <div class="asked">
          <ActButton act={act} class="button-main" busy="Leaving …">
            Leave, and end the node
          </ActButton>
          <button type="button" class="button" onClick={() => setAsked(false)}>
            Stay
          </button>
        </div>
      ) : (
        <button type="button" class="button" onClick={() => setAsked(true)}>
          Leave …
        </button>
      )}
    </Card>
  )
}
