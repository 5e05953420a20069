import { compile, type JSONSchema } from 'json-schema-to-typescript'

type Json = Record<string, unknown>

const HEADING = `/**
 * The types of the control API, made from docs/openapi.json: \`sh bin/tool node test/support/generated-files.ts\` writes them.
 * What they mean is in docs/control-api.md. Longer than 500 lines because nobody writes it.
 */`

/** The TypeScript types of an OpenAPI document: its schemas, the answers and bodies by route, and the parameters' names. */
export async function apiTypes(document: Json): Promise<string> {
  const { schemas } = document.components as { schemas: Record<string, Json> }
  const answers: Record<string, Json> = {}
  const bodies: Record<string, Json> = {}
  for (const [path, methods] of Object.entries(document.paths as Record<string, Json>)) {
    for (const [method, operation] of Object.entries(methods as Record<string, Json>)) {
      const name = `${method.toUpperCase()} ${path}`
      const { responses, requestBody } = operation as { responses: Record<string, Json>; requestBody?: Json }
      const success = Object.entries(responses).find(([status]) => status.startsWith('2'))![1]
      answers[name] = schemaOf(success)
      if (requestBody !== undefined) bodies[name] = schemaOf(requestBody)
    }
  }
  const root = {
    title: 'ApiTypes',
    ...object({
      schemas: { title: 'ApiSchemas', ...object(Object.fromEntries(Object.keys(schemas).map((name) => [name, definition(name)]))) },
      answers: { title: 'ApiAnswers', description: 'What each route answers.', ...object(answers) },
      bodies: { title: 'ApiBodies', description: 'What each route takes.', ...object(bodies) },
    }),
    definitions: Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, { title: name, ...schema }])),
  }
  const moved = JSON.parse(JSON.stringify(root).replaceAll('#/components/schemas/', '#/definitions/'), anything) as JSONSchema
  const text = await compile(moved, 'ApiTypes', {
    additionalProperties: false,
    bannerComment: HEADING,
    declareExternallyReferenced: true,
    // Lists with limits are lists, not tuples of each possible length.
    ignoreMinAndMaxItems: true,
    style: { semi: false, singleQuote: true, printWidth: 140 },
  })
  return readonly(text)
}

/** A schema that says nothing is `unknown`, not an object of unknown fields; one that only says more of a named one is that one. */
function anything(key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const { $ref, description } = value as { $ref?: string; description?: string }
  if ($ref !== undefined && description !== undefined) return { description, tsType: $ref.slice($ref.lastIndexOf('/') + 1) }
  const isSchema = Object.keys(value).every((name) => name === 'description')
  return isSchema && key !== 'properties' && key !== 'definitions' ? { ...value, tsType: 'unknown' } : value
}

function object(properties: Record<string, unknown>): Json {
  return { type: 'object', properties, required: Object.keys(properties), additionalProperties: false }
}

function definition(name: string): Json {
  return { $ref: `#/components/schemas/${name}` }
}

function schemaOf(described: Json): Json {
  return Object.values(described.content as Record<string, { schema: Json }>)[0]!.schema
}

/** What comes over a wire is nobody's to change. */
function readonly(text: string): string {
  const lines = text.replace(/\/\*\*\n\s+\* ([^\n]*)\n\s+\*\//g, '/** $1 */').split('\n')
  // A list of objects that have no name of their own ends with `}[]` and begins above, as far to the left.
  for (const [end, line] of lines.entries()) {
    const indent = /^(\s+)\}\[\]/.exec(line)?.[1]
    if (indent === undefined) continue
    const begin = lines.findLastIndex((one, at) => at < end && one.startsWith(indent) && /^\S.*\{$/.test(one.slice(indent.length)))
    lines[begin] = lines[begin]!.replace(/\{$/, 'readonly {')
  }
  return lines
    .map((line) =>
      /^\s*\/?\*/.test(line)
        ? line
        : line
            .replace(/^(\s+)((?:'[^']+'|[\w$]+)\??:|\[k: string\]:)/, '$1readonly $2')
            .replace(/(\b[\w$]+|\([^()]*\))\[\]/g, 'readonly $1[]'),
    )
    .join('\n')
}
