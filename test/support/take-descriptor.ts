/** A program that takes a descriptor over the socket it is told, and says what can be read from it. */
import { readFileSync } from 'node:fs'
import { takeDescriptor } from '../../src/tun/index.ts'

process.send!('running')
process.once('message', async () => {
  const fd = await takeDescriptor(process.argv[2]!)
  process.stdout.write(readFileSync(fd, 'utf8'), () => process.exit(0))
})
