export * from './deadline.ts'
export * from './flush.ts'
export * from './held-packets.ts'
export * from './read-buffers.ts'
