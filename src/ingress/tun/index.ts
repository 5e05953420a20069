export { type TunConfig, tunConfig, tunKeys } from './config.ts'
export { openPcap, type PcapFile } from './pcap-file.ts'
export { type DnsAsker, type TunCounts, TunIngress, type TunModules } from './tun-ingress.ts'
