import type { Parameter, Route } from './api/routes.ts'
import { Refusal } from './http.ts'

/** Parameters of a request, as `ROUTES` describes them: flags as booleans, numbers as numbers. */
export interface Parameters {
  readonly [name: string]: unknown
}

/** Reads a query. What the route does not know is refused, and so is what is given twice. @throws Refusal */
export function readQuery(query: URLSearchParams, path: string, known: Route['query'] = {}): Parameters {
  const read: Record<string, unknown> = {}
  for (const [name, text] of query) {
    const parameter = Object.hasOwn(known, name) ? known[name] : undefined
    if (parameter === undefined) {
      const names = Object.keys(known)
      const what = names.length === 0 ? 'no parameters' : names.join(', ')
      throw new Refusal(400, 'unknown-parameter', `${path} knows ${what}, not ${shown(name)}`)
    }
    if (Object.hasOwn(read, name)) throw new Refusal(400, 'bad-parameter', `${name} is given twice`)
    read[name] = readParameter(name, text, parameter)
  }
  return read
}

/** Reads one parameter. @throws Refusal */
export function readParameter(name: string, text: string, parameter: Parameter): unknown {
  const wrong = (wanted: string): never => {
    throw new Refusal(400, 'bad-parameter', `${name} must be ${wanted}`)
  }
  switch (parameter.type) {
    case 'flag':
      return text === '0' || text === '1' ? text === '1' : wrong('0 or 1')
    case 'integer': {
      const value = Number(text)
      const fits = /^\d{1,16}$/.test(text) && value >= parameter.min && value <= parameter.max
      return fits ? value : wrong(`a whole number from ${parameter.min} to ${parameter.max}`)
    }
    case 'text':
      return text !== '' && text.length <= parameter.max ? text : wrong(`a text of 1 to ${parameter.max} characters`)
    case 'choice':
      return parameter.of.includes(text) ? text : wrong(`one of ${parameter.of.join(', ')}`)
    case 'choices': {
      const values = text.split(',')
      return values.every((value) => parameter.of.includes(value))
        ? values
        : wrong(`some of ${parameter.of.join(', ')}, with commas between`)
    }
  }
}

/** A name from outside, short and in one line. */
function shown(name: string): string {
  return JSON.stringify(name.slice(0, 50))
}
