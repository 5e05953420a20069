export * from './descriptor.ts'
export * from './policy.ts'
