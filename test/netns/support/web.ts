import { startWebServer } from '../../support/web-server.ts'

/** The web server of the tests as a program of its own: `web.ts ADDRESS PORT`. */
const [host = '127.0.0.1', port = '80'] = process.argv.slice(2)
const server = await startWebServer({ listen: { host, port: Number(port) } })
console.log(`ready ${server.url}`)
