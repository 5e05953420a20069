export * from './cell.ts'
export * from './circuit.ts'
