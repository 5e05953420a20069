import { Validator } from '@seriousme/openapi-schema-validator'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { apiDocument } from '../../../src/control/api/document.ts'
import { events } from '../../../src/control/api/events.ts'
import { EVENT_TYPES, ROUTES, type Route } from '../../../src/control/api/routes.ts'

const document = JSON.parse(JSON.stringify(apiDocument())) as {
  openapi: string
  paths: Record<string, Record<string, { operationId: string }>>
  components: { schemas: Record<string, Record<string, unknown>> }
}

/** Names of schemas that a part of the document points at. */
function pointedAt(part: unknown): string[] {
  return [...JSON.stringify(part).matchAll(/#\/components\/schemas\/(\w+)/g)].map((match) => match[1]!)
}

describe('the document of the control API', () => {
  test('is valid OpenAPI 3.1', async () => {
    expect(document.openapi).toBe('3.1.0')
    const result = await new Validator().validate(structuredClone(document))
    expect(result.errors ?? []).toEqual([])
    expect(result.valid).toBe(true)
  })

  test('is found wanting by the validator when something is wrong', async () => {
    const broken = structuredClone(document)
    ;(broken.paths['/v1/status'] as Record<string, unknown>).get = { responses: 'none' }
    expect((await new Validator().validate(broken)).valid).toBe(false)
  })

  test('has every route, each with a name of its own', () => {
    const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    )
    expect(operations.sort()).toEqual(Object.keys(ROUTES).sort())
    const ids = Object.values(document.paths).flatMap((methods) => Object.values(methods).map(({ operationId }) => operationId))
    expect(new Set(ids).size).toBe(ids.length)
  })

  test('points at no schema that is not there, and has none that nothing points at', () => {
    const known = Object.keys(document.components.schemas)
    const used = new Set(pointedAt(document))
    expect([...used].filter((name) => !known.includes(name))).toEqual([])
    expect(known.filter((name) => !used.has(name))).toEqual([])
  })

  test('names each parameter of a path', () => {
    for (const [name, route] of Object.entries<Route>(ROUTES))
      expect(Object.keys(route.path ?? {}), name).toEqual([...name.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!))
  })

  test('has one schema for each type of event, and all of them can be asked for', () => {
    const types = events.options.map((option) => (option as z.ZodObject<{ type: z.ZodLiteral<string> }>).shape.type.value)
    expect([...EVENT_TYPES]).toEqual(types)
  })

  test('lets facts have more fields than it names, and requests none', () => {
    const closed = Object.entries(document.components.schemas).filter(([, schema]) => schema.additionalProperties === false)
    expect(closed.map(([name]) => name).every((name) => /Request$|^SettingsChange$|^LogLevels$/.test(name))).toBe(true)
    expect(closed.length).toBeGreaterThan(4)
    expect(z.toJSONSchema(z.strictObject({})).additionalProperties).toBe(false)
  })
})
