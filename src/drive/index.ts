export * from './deadline.ts'
export * from './flush.ts'
export * from './read-buffers.ts'
