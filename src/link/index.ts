export * from './byte-meter.ts'
export * from './channel.ts'
export * from './memory-channel.ts'
