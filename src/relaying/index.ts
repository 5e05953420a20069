export * from './config.ts'
export * from './engine.ts'
export * from './exit-refusal.ts'
export * from './exit-service.ts'
