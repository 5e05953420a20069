/** The names of metrics in an expression: what is a name, and no function, keyword, label or value. */
export function metricNames(expr: string): string[] {
  const bare = expr
    .replace(/"(?:[^"\\]|\\.)*"/g, '')
    .replace(/\{[^}]*\}/g, '{}')
    .replace(/\b(by|on|without|ignoring)\s*\([^)]*\)/g, '')
  const words = [...bare.matchAll(/[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w*\s*\()/g)].map(([word]) => word)
  return [...new Set(words.filter((word) => word.includes('_') || word === 'up'))]
}
