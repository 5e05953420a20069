import { z } from 'zod'
import './document.ts'
import { ROUTES, type Route, type RouteName } from './routes.ts'
import { schemaNamed } from './schema.ts'

/** Whether a value is what a route of this version answers. Further fields are no matter. */
export function fitsAnswer(route: RouteName, value: unknown): boolean {
  const { answer }: Route = ROUTES[route]
  const schema = schemaNamed(answer.replace(/\[\]$|\?$/, '')) ?? z.unknown()
  const whole = answer.endsWith('[]') ? z.array(schema) : answer.endsWith('?') ? schema.nullable() : schema
  return whole.safeParse(value).success
}
