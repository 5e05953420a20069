import { describe, expect, it } from 'vitest'
import { httpConfig, isolationKey, socksConfig } from '../../../src/ingress/index.ts'
import { credentialChecker, requestIsolation } from '../../../src/ingress/isolation.ts'

const problems = (config: object): string[] =>
  (socksConfig.safeParse(config).error?.issues ?? []).map((issue) => `${issue.path.join('.')}: ${issue.message}`)

describe('the configuration of a listener', () => {
  it('listens on loopback by default', () => {
    expect(socksConfig.parse({}).listen).toEqual(['127.0.0.1:9250'])
    expect(httpConfig.parse({}).listen).toEqual(['127.0.0.1:9280'])
    expect(socksConfig.parse({ listen: [] }).listen).toEqual([])
  })

  it.each([['0.0.0.0:9250'], ['192.168.1.5:9250'], ['[::]:9250'], ['[2001:db8::1]:9250']])('refuses %s without credentials', (address) => {
    expect(problems({ listen: ['127.0.0.1:1', address] })).toEqual([
      `listen.1: ${address} is not a loopback address: set \`credentials\` before others can reach this port, or listen on 127.0.0.1`,
    ])
    expect(problems({ listen: [address], credentials: [{ user: 'u', password: 'p' }] })).toEqual([])
    expect(httpConfig.safeParse({ listen: [address] }).success).toBe(false)
  })

  it.each([['127.0.0.1:9250'], ['127.9.9.9:0'], ['[::1]:9250']])('takes %s without credentials', (address) => {
    expect(problems({ listen: [address] })).toEqual([])
  })

  it.each([['localhost:9250'], ['9250'], ['127.0.0.1'], ['::1:9250x'], ['127.0.0.1:70000'], ['']])(
    'refuses "%s" and says what is wanted',
    (address) => {
      expect(problems({ listen: [address] })).toHaveLength(1)
      expect(problems({ listen: [address] })[0]).toMatch(/^listen\.0: .*wanted: ADDRESS:PORT/)
    },
  )

  it('refuses required credentials when there are none', () => {
    expect(problems({ requireCredentials: true })).toEqual(['requireCredentials: needs at least one entry in `credentials`'])
  })

  it('has words of help for every key', () => {
    for (const schema of [socksConfig, httpConfig]) {
      for (const [key, field] of Object.entries(schema.shape)) expect(field.description, key).toMatch(/\.$/)
    }
  })
})

describe('isolation keys', () => {
  it('are equal for the same origin and different for any other', () => {
    const origins = [
      { listener: 'socks' },
      { listener: 'http' },
      { listener: 'socks', user: '' },
      { listener: 'socks', user: 'a', password: 'b' },
      { listener: 'socks', user: 'ab', password: '' },
      { listener: 'socks', user: 'a', password: 'b', clientAddress: '127.0.0.1' },
      { listener: 'socks', destination: 'a' },
      { listener: 'socks', clientAddress: 'a' },
    ]
    expect(new Set(origins.map(isolationKey)).size).toBe(origins.length)
    for (const origin of origins) expect(isolationKey({ ...origin })).toBe(isolationKey(origin))
  })

  it('hold nothing of what they were made of', () => {
    expect(isolationKey({ listener: 'socks', user: 'secretuser', password: 'secretpass' })).toMatch(/^[0-9a-f]{32}$/)
  })

  it('follow the rules of the listener', () => {
    const one = { listener: 'socks', user: 'u', password: 'p', clientAddress: '127.0.0.1', host: 'a.example', port: 80 }
    const differ = (rules: Parameters<typeof requestIsolation>[0], change: object): boolean =>
      requestIsolation(rules, one) !== requestIsolation(rules, { ...one, ...change })
    expect(differ(['credentials'], { password: 'q' })).toBe(true)
    expect(differ(['client-address'], { password: 'q' })).toBe(false)
    expect(differ(['client-address'], { clientAddress: '127.0.0.2' })).toBe(true)
    expect(differ(['credentials'], { clientAddress: '127.0.0.2' })).toBe(false)
    expect(differ(['destination-address'], { host: 'b.example' })).toBe(true)
    expect(differ(['destination-address'], { port: 81 })).toBe(false)
    expect(differ(['destination-port'], { port: 81 })).toBe(true)
    expect(differ([], { host: 'b.example', user: 'v', clientAddress: 'x', port: 1 })).toBe(false)
    expect(differ([], { listener: 'http' })).toBe(true)
  })
})

describe('credentials', () => {
  const check = credentialChecker([
    { user: 'alice', password: 'pässword' },
    { user: 'bob', password: 'b' },
  ])
  const given = (user: string, password: string): { user: string; password: string } => ({
    user: Buffer.from(user).toString('latin1'),
    password: Buffer.from(password).toString('latin1'),
  })

  it('are compared by their bytes', () => {
    expect(check(given('alice', 'pässword'))).toBe(true)
    expect(check(given('bob', 'b'))).toBe(true)
    expect(check(given('alice', 'b'))).toBe(false)
    expect(check(given('bobb', ''))).toBe(false)
    expect(check(given('', ''))).toBe(false)
    expect(credentialChecker([])(given('', ''))).toBe(false)
  })
})
