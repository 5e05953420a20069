import { z } from 'zod'
import { VERSION_HEADER } from '../messages.ts'
import { events } from './events.ts'
import './bodies.ts'
import './facts.ts'
import './nat.ts'
import './operation.ts'
import { type Parameter, ROUTES, type Route } from './routes.ts'
import { apiSchemas, named } from './schema.ts'

/** The API's own version: its second number rises with what is added, its first with what breaks a program. */
const API_VERSION = '1.1'

named('Stopping', 'The node ends.', z.object({ stopping: z.literal(true) }))
named('Ended', 'It is over.', z.object({ ended: z.literal(true) }))
named('VpnSessionEvent', 'A line for each of these, as long as the session lasts.', z.object({ type: z.literal('open') }))
named('Document', 'An OpenAPI 3.1 document.', z.record(z.string(), z.unknown()))

type Json = Record<string, unknown>
const ref = (name: string): Json => ({ $ref: `#/components/schemas/${name}` })

/** Of every answer. */
const HEADERS: Json = { [VERSION_HEADER]: { $ref: '#/components/headers/Version' } }

/** The OpenAPI 3.1 document of the API. */
export function apiDocument(): Json {
  void events
  const { schemas } = z.toJSONSchema(apiSchemas, {
    target: 'draft-2020-12',
    uri: (id) => `#/components/schemas/${id}`,
    override: ({ zodSchema, jsonSchema }) => {
      // Readers ignore fields they do not know; only requests are held to what is there.
      if (zodSchema instanceof z.ZodObject && zodSchema.def.catchall === undefined) delete jsonSchema.additionalProperties
    },
  }) as { schemas: Record<string, Json> }
  for (const schema of Object.values(schemas)) {
    delete schema.$schema
    delete schema.$id
    delete schema.id
  }
  // Of any depth, a value is judged by the configuration's schema alone: here it says what kinds there are.
  const set = (schemas.SettingsChange!.properties as { set: Json }).set
  set.additionalProperties = { anyOf: [ref('SettingValue'), { type: 'null' }] }
  const paths: Record<string, Json> = {}
  for (const [name, route] of Object.entries<Route>(ROUTES)) {
    const [method, path] = name.split(' ') as [string, string]
    paths[path] = { ...paths[path], [method.toLowerCase()]: operation(name, route) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Shallot control API',
      version: API_VERSION,
      description: 'What a running node tells and does. docs/control-api.md has the same for people, with examples.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: 'http://127.0.0.1:9290', description: "The dashboard's listener. The control socket answers the same." }],
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          description: "The line of the file control-token in the node's directory, or the token of a session.",
        },
      },
      headers: {
        Version: {
          description: 'The version of the program that the node runs. Absent where the token was not good.',
          schema: { type: 'string', examples: ['0.1.0'] },
        },
      },
      schemas: Object.fromEntries(Object.entries(schemas).sort(([a], [b]) => (a < b ? -1 : 1))),
    },
  }
}

function operation(name: string, route: Route): Json {
  const { summary, status = 200, access } = route
  const parameters = [
    ...Object.entries(route.path ?? {}).map(([key, parameter]) => parameterOf(key, 'path', parameter)),
    ...Object.entries(route.query ?? {}).map(([key, parameter]) => parameterOf(key, 'query', parameter)),
  ]
  const where = {
    socket: "On the control socket only, with the node's own token.",
    code: "On the dashboard's listener only, from its own page.",
    session: "On the dashboard's listener only.",
  }
  return {
    operationId: operationId(name),
    summary,
    ...(access === undefined ? {} : { description: where[access] }),
    ...(access === 'code' ? { security: [] } : {}),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(route.body === undefined ? {} : { requestBody: { required: true, content: { 'application/json': { schema: ref(route.body) } } } }),
    responses: {
      [status]: { description: 'Done.', headers: HEADERS, content: { [contentType(route)]: { schema: answerSchema(route.answer) } } },
      default: { description: 'It could not be done.', headers: HEADERS, content: { 'application/json': { schema: ref('Problem') } } },
    },
  }
}

/** "GET /v1/relays/{id}" is getRelaysId. */
function operationId(name: string): string {
  const words = name
    .toLowerCase()
    .replace('/v1', '')
    .match(/[a-z]+/g)!
  return words.map((word, i) => (i === 0 ? word : word[0]!.toUpperCase() + word.slice(1))).join('')
}

function contentType({ as }: Route): string {
  return as === 'events' ? 'text/event-stream' : as === 'lines' ? 'application/x-ndjson' : 'application/json'
}

function answerSchema(answer: string): Json {
  if (answer.endsWith('[]')) return { type: 'array', items: ref(answer.slice(0, -2)) }
  if (answer.endsWith('?')) return { anyOf: [ref(answer.slice(0, -1)), { type: 'null' }] }
  return ref(answer)
}

function parameterOf(name: string, where: 'path' | 'query', parameter: Parameter): Json {
  const list = parameter.type === 'choices' ? { style: 'form', explode: false } : {}
  return { name, in: where, required: where === 'path', description: parameter.help, ...list, schema: parameterSchema(parameter) }
}

function parameterSchema(parameter: Parameter): Json {
  switch (parameter.type) {
    case 'flag':
      return { type: 'string', enum: ['0', '1'] }
    case 'integer':
      return { type: 'integer', minimum: parameter.min, maximum: parameter.max }
    case 'text':
      return { type: 'string', maxLength: parameter.max }
    case 'choice':
      return { type: 'string', enum: parameter.of }
    case 'choices':
      return { type: 'array', items: { type: 'string', enum: parameter.of } }
  }
}
