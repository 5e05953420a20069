import { expect, test } from 'vitest'
import { ShallotError } from '../../../src/base/index.ts'
import { hasAnswered } from '../../../src/client/has-answered.ts'

const failed = (cause?: unknown): ShallotError =>
  new ShallotError('connect-failed', 'no link to the peer', { kind: 'link', retry: 'later', cause })
const errno = (code: string): Error => Object.assign(new Error(code), { code })

test.each([
  ['a refused connection', failed(errno('ECONNREFUSED')), true],
  ['a reset', failed(errno('ECONNRESET')), true],
  ['another identity', new ShallotError('identity-mismatch', 'not the relay', { kind: 'link', retry: 'elsewhere' }), true],
  ['one refusal among several addresses', failed(new AggregateError([errno('EHOSTUNREACH'), errno('ECONNREFUSED')])), true],
  ['silence', failed(), false],
  ['no route', failed(errno('ENETUNREACH')), false],
  ['something that is no error', 'text', false],
])('%s', (_, error, answered) => {
  expect(hasAnswered(error)).toBe(answered)
})
