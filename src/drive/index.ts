export * from './deadline.ts'
export * from './flush.ts'
