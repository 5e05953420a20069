export * from './exit-service.ts'
