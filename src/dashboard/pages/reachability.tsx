import type { ComponentChildren, JSX } from 'preact'
import type { FamilyFacts } from '../../control/api-types.ts'
import { duration, moment, shortId, words } from '../format.ts'
import { nat } from '../node-state.ts'
import { Breakable } from '../parts/breakable.tsx'
import { Badge, Card } from '../parts/card.tsx'
import { Draw } from '../parts/icons.tsx'
import { REACHABILITY } from '../parts/reachability-card.tsx'
import { Empty, Failed, Loading } from '../parts/states.tsx'
import { useResource } from '../resource.ts'

/** How others reach this node, in plain words. */
export function ReachabilityPage(): JSX.Element {
  const { data, error } = useResource(nat)
  if (data === undefined)
    return error === null ? <Loading what="the reachability" lines={6} /> : <Failed error={error} again={() => void nat.reload()} />
  if (data === null) {
    return (
      <Card title="Nobody needs to reach this node">
        <Empty icon="shield" title="It only uses the mesh">
          <p>
            A pure client opens connections and never takes any: no port is open, and NATs do not matter. A node with a role for others, or
            with <code>nat.enabled = true</code>, finds out here how it is reached.
          </p>
        </Empty>
      </Card>
    )
  }
  const [tone, title, text] = REACHABILITY[data.state]
  return (
    <>
      <section class={`card verdict verdict-${tone}`} aria-labelledby="verdict">
        <Draw name={tone === 'good' ? 'check' : tone === 'bad' ? 'warning' : 'reachability'} />
        <div>
          <h2 id="verdict">{title}</h2>
          <p>{text}</p>
          <p class="muted">Since {moment(data.since)}.</p>
        </div>
      </section>
      {data.advice.length === 0 ? null : (
        <Card title="What would make it better">
          <Lines lines={data.advice} />
        </Card>
      )}
      <div class="columns columns-even">
        <Card title="What this node can do for others">
          <ul class="serves">
            {data.serves.map(({ role, possible, why }) => (
              <li key={role}>
                <Badge tone={possible ? 'good' : 'idle'}>{possible ? 'can' : 'cannot'}</Badge>
                <span>
                  <strong>{role === 'relay' ? 'NAT relay' : role}:</strong> {why}
                </span>
              </li>
            ))}
          </ul>
        </Card>
        <Card title="Why">
          <Lines lines={data.reasons} />
        </Card>
        <Family name="IPv4" facts={data.ipv4} />
        <Family name="IPv6" facts={data.ipv6} />
        <Card title="Addresses">
          <Facts
            rows={[
              ['Listening on', <Addresses of={data.listening} key="listening" />],
              ['Announced', <Addresses of={data.announced} key="announced" />],
              [
                'Port mapping',
                data.mapping === null
                  ? 'none'
                  : `${data.mapping.protocol}: ${data.mapping.external}, until ${moment(data.mapping.expiresAt)}`,
              ],
              ['NAT relays in use', data.relays.map(({ relay }) => shortId(relay)).join(', ') || 'none'],
            ]}
          />
        </Card>
        <Card title="STUN servers asked">
          {data.stun.length === 0 ? (
            <p class="muted">None was asked.</p>
          ) : (
            <ul class="serves">
              {data.stun.map(({ server, verdict, said }) => (
                <li key={server}>
                  <Badge tone={verdict === 'believed' ? 'good' : verdict === 'lying' ? 'bad' : 'idle'}>{verdict}</Badge>
                  <span class="mono wrap">
                    <Breakable text={server} />
                    {said === null ? null : (
                      <>
                        {' says '}
                        <Breakable text={said} />
                      </>
                    )}
                  </span>
                </li>
              ))}
            </ul>
          )}
        </Card>
      </div>
      {data.lost.length === 0 ? null : (
        <Card title="What is missing on this machine">
          <Lines lines={data.lost} />
        </Card>
      )}
    </>
  )
}

function Family({ name, facts }: { readonly name: string; readonly facts: FamilyFacts | null }): JSX.Element {
  if (facts === null) {
    return (
      <Card title={name}>
        <p class="muted">This machine has no {name}.</p>
      </Card>
    )
  }
  const said = (value: boolean | null, yes: string, no: string): string => (value === null ? 'not known' : value ? yes : no)
  return (
    <Card title={name}>
      <p class="nat-kind">{facts.kind}</p>
      <Facts
        rows={[
          ['Seen from outside', <Breakable text={facts.public ?? 'not known'} key="public" />],
          ['On this machine', facts.local.join(', ') || 'none'],
          ['New outside port', facts.mapping === null ? 'not known' : facts.mapping === 'none' ? 'no translation' : words(facts.mapping)],
          ['Lets in', facts.filtering === null ? 'not known' : words(facts.filtering)],
          ['Port kept', said(facts.portPreserved, 'yes', 'no')],
          ['Forgets after', facts.bindingLifetimeMs === null ? 'not measured' : duration(facts.bindingLifetimeMs)],
          ['Connections from outside', said(facts.dialBack, 'came in', 'did not come in')],
        ]}
      />
    </Card>
  )
}

function Addresses({ of }: { readonly of: readonly string[] }): JSX.Element {
  if (of.length === 0) return <>nothing</>
  return (
    <>
      {of.map((address) => (
        <div key={address}>
          <Breakable text={address} />
        </div>
      ))}
    </>
  )
}

function Facts({ rows }: { readonly rows: readonly (readonly [string, ComponentChildren])[] }): JSX.Element {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd class="wrap">{value}</dd>
        </div>
      ))}
    </dl>
  )
}

function Lines({ lines }: { readonly lines: readonly string[] }): JSX.Element {
  return (
    <ul class="lines">
      {lines.map((line) => (
        <li key={line}>{line}</li>
      ))}
    </ul>
  )
}
