import type { JSX } from 'preact'
import type { VpnFacts } from '../../control/api-types.ts'
import { useAct } from '../act.ts'
import { ask } from '../api.ts'
import { bytes, number } from '../format.ts'
import { vpn } from '../node-state.ts'
import { useResource } from '../resource.ts'
import { ActButton } from './act-button.tsx'
import { Badge, Card } from './card.tsx'
import { Failed, Loading, Notice } from './states.tsx'

const STATES: Readonly<Record<VpnFacts['state'], readonly [tone: 'good' | 'busy' | 'bad' | 'idle', name: string, text: string]>> = {
  down: ['idle', 'Off', 'Programs that use the proxy go through Shallot; everything else goes the usual way.'],
  starting: ['busy', 'Starting', 'The machine’s traffic is being moved into the mesh. Until then nothing leaves.'],
  up: ['good', 'On', 'Everything on this machine goes through Shallot, or nowhere.'],
  blocked: ['bad', 'Blocked', 'The mesh cannot carry anything now, so nothing leaves this machine.'],
  stopping: ['busy', 'Stopping', 'The machine goes back to the usual way.'],
}

/** Everything through the mesh: on, off, and what it does. */
export function VpnCard(): JSX.Element | null {
  const { data, error } = useResource(vpn)
  const up = useAct(async () => take(await ask('POST /v1/vpn/up')))
  const down = useAct(async () => take(await ask('POST /v1/vpn/down')))
  if (data === null) return null
  if (data === undefined) {
    return (
      <Card title="Whole machine">
        {error === null ? <Loading what="the VPN" lines={2} /> : <Failed error={error} again={() => void vpn.reload()} />}
      </Card>
    )
  }
  const [tone, name, text] = STATES[data.state]
  const off = data.state === 'down' || data.state === 'stopping'
  const act = off ? up : down
  const failed = [up.state.value, down.state.value].find(({ kind }) => kind === 'failed')
  return (
    <Card title="Whole machine (VPN)" aside={<Badge tone={tone}>{name}</Badge>}>
      <p>{text}</p>
      {data.counts === null || off ? null : (
        <dl class="facts">
          <div>
            <dt>Device</dt>
            <dd>{data.device?.name ?? '–'}</dd>
          </div>
          <div>
            <dt>Down and up</dt>
            <dd>
              {bytes(data.counts.bytesIn)} · {bytes(data.counts.bytesOut)}
            </dd>
          </div>
          <div>
            <dt>Flows</dt>
            <dd>{number(data.counts.tcpFlows + data.counts.udpFlows)}</dd>
          </div>
          <div>
            <dt>Kept from leaking</dt>
            <dd>{number(data.counts.blocked)} packets</dd>
          </div>
        </dl>
      )}
      {data.problems.map((problem) => (
        <Notice kind="bad" key={problem}>
          {problem}
        </Notice>
      ))}
      {failed?.kind === 'failed' ? <Notice kind="bad">{failed.error.message}</Notice> : null}
      <ActButton act={act} busy={off ? 'Turning on …' : 'Turning off …'}>
        {off ? 'Turn on' : 'Turn off'}
      </ActButton>
    </Card>
  )
}

function take(facts: VpnFacts): void {
  vpn.data.value = facts
}
