import type { PacketBatch } from './batch.ts'
import type { Medium, PacketPort, PacketPortHandlers, PortStats } from './port.ts'

/** A port around another, which passes everything on: who wants to see or change something overrides that. */
export abstract class PortAround implements PacketPort {
  protected readonly port: PacketPort

  constructor(port: PacketPort) {
    this.port = port
  }

  get name(): string {
    return this.port.name
  }

  get medium(): Medium {
    return this.port.medium
  }

  get mtu(): number {
    return this.port.mtu
  }

  get stats(): Readonly<PortStats> {
    return this.port.stats
  }

  abstract attach(handlers: PacketPortHandlers): void

  send(batch: PacketBatch, from = 0): number {
    return this.port.send(batch, from)
  }

  pause(): void {
    this.port.pause()
  }

  resume(): void {
    this.port.resume()
  }

  close(): void {
    this.port.close()
  }
}
