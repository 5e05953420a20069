import { KernelBackend } from '../../src/egress/index.ts'
import { exitBackendCompliance } from './exit-backend.ts'

exitBackendCompliance('kernel sockets', () => new KernelBackend())
exitBackendCompliance('kernel sockets with source addresses', () => new KernelBackend({ outboundIpv4: '127.0.0.1', outboundIpv6: '::1' }))
