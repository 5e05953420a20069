import { z } from 'zod'

/** The schemas that the API document names, by name. Its own registry: other schemas of the program have no place there. */
export const apiSchemas = z.registry<{ id: string; description: string }>()

const byName = new Map<string, z.ZodType>()

/** The schema with a name. */
export function schemaNamed(id: string): z.ZodType | undefined {
  return byName.get(id)
}

/** An object of the API, under a name. Readers ignore fields they do not know, so more may come. */
export function named<S extends z.ZodType>(id: string, description: string, schema: S): S {
  apiSchemas.add(schema, { id, description })
  byName.set(id, schema)
  return schema
}

/** Wall-clock time. */
export const time = z.int().min(0).describe('Milliseconds since 1970.')
/** Counts of things by a name. */
export const tally = z.record(z.string(), z.int().min(0))
export const count = z.int().min(0)
export const nodeId = z.string().describe('A node id: 12D3KooW…')
export const country = z.string().nullable().describe('ISO 3166-1 code of two letters; null where it is not known.')
