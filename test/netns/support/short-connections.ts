import { connect } from 'node:net'

// HOST PORT COUNT AT-ONCE: opens, says a word, hears it back and closes, over and over. Prints one line of JSON.
const [host, port, count, atOnce] = process.argv.slice(2) as [string, string, string, string]
let started = 0
const result = { done: 0, failed: 0 }

function one(): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(Number(port), host)
    socket.setTimeout(20_000, () => socket.destroy(new Error('too slow')))
    socket.on('error', (error) => {
      result.failed++
      process.stderr.write(`${error.message}\n`)
      resolve()
    })
    socket.write('word')
    // Some end first here, some there.
    if (started % 2 === 0) socket.end()
    socket.once('data', () => socket.end())
    socket.on('end', () => {
      result.done++
      socket.destroy()
      resolve()
    })
  })
}

async function worker(): Promise<void> {
  while (started < Number(count)) {
    started++
    await one()
  }
}

await Promise.all(Array.from({ length: Number(atOnce) }, worker))
process.stdout.write(`${JSON.stringify(result)}\n`)
