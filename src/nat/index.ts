export type { Endpoint, FilteringBehaviour, MappingBehaviour, NatBehaviour } from './behaviour.ts'
export { isPunchable } from './behaviour.ts'
export type * from './facts.ts'
