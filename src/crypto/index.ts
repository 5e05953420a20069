export * from './choose.ts'
export { nativeSuite } from './native.ts'
export { portableSuite } from './portable.ts'
export * from './suite.ts'
