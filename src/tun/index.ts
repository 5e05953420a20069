export { HANDOVER_MS, offerDescriptor, takeDescriptor } from './handover.ts'
export { adoptTun, createTun, openTun, type TunDevice, type TunOptions } from './open.ts'
export { type TunDescriptor, TunPort, type TunWants, type TunWrite, tunLimits } from './tun-port.ts'
