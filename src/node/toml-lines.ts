/** Where the keys of a TOML text stand, for messages. An aid: what it cannot find has no line, and it never fails. */
export class TomlLines {
  readonly #lines = new Map<string, number>()

  constructor(text: string) {
    let table = ''
    const tables = new Map<string, number>()
    let until: string | null = null
    for (const [index, line] of text.split(/\r?\n/).entries()) {
      if (until !== null) {
        if (line.includes(until)) until = null
        continue
      }
      const header = /^\s*(\[\[?)\s*([^\]]+?)\s*\]/.exec(line)
      if (header) {
        const name = split(header[2]!).join('.')
        if (header[1] === '[[') {
          const count = tables.get(name) ?? 0
          tables.set(name, count + 1)
          table = `${name}[${count}]`
        } else {
          table = name
        }
        this.#lines.set(table, index + 1)
        // `[a.b]` stands for `a` too, where nothing stood for it before.
        for (let outer = table; outer.includes('.'); ) {
          outer = outer.slice(0, outer.lastIndexOf('.'))
          if (!this.#lines.has(outer)) this.#lines.set(outer, index + 1)
        }
        continue
      }
      const assignment = /^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=\s*(.*)$/.exec(line)
      if (!assignment) continue
      const path = table === '' ? split(assignment[1]!) : [table, ...split(assignment[1]!)]
      this.#lines.set(path.join('.'), index + 1)
      const value = assignment[2]!
      for (const quotes of ['"""', "'''"]) if (value.startsWith(quotes) && !value.includes(quotes, 3)) until = quotes
    }
  }

  /** The line of a key as `tomlPath` spells it, or of the nearest thing around it; null when there is none. */
  lineOf(path: string): number | null {
    let at = path
    for (;;) {
      const line = this.#lines.get(at)
      if (line !== undefined) return line
      const cut = Math.max(at.lastIndexOf('.'), at.lastIndexOf('['))
      if (cut <= 0) return null
      at = at.slice(0, cut)
    }
  }
}

function split(name: string): string[] {
  return (name.match(/[A-Za-z0-9_-]+|"[^"]*"|'[^']*'/g) ?? []).map((part) => {
    const bare = part.replace(/^["']|["']$/g, '')
    return /^[A-Za-z0-9_-]+$/.test(bare) ? bare : JSON.stringify(bare)
  })
}
