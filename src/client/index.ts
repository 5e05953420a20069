export * from './service.ts'
export * from './stream-error.ts'
