/** The fixed head of a message. RFC 1035 §4.1.1 */
export const DNS_HEADER_BYTES = 12
/** The longest message that its length in two bytes can tell. RFC 1035 §4.2.2 */
export const DNS_MESSAGE_BYTES = 65_535
/** The longest name as it stands in a message, lengths and the root included. RFC 1035 §2.3.4 */
export const DNS_NAME_BYTES = 255
/** What fits a datagram when nothing else was said. RFC 1035 §4.2.1 */
export const PLAIN_DATAGRAM_BYTES = 512
/** What we say fits a datagram to us: it needs no fragments on any path of today. RFC 9715 §3.2 (DNS flag day 2020) */
export const DATAGRAM_BYTES = 1232

/** Types of records and questions that have a meaning here. Any other is carried as it is (RFC 3597). */
export const DnsType = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  DNAME: 39,
  OPT: 41,
  SVCB: 64,
  HTTPS: 65,
  TKEY: 249,
  TSIG: 250,
  IXFR: 251,
  AXFR: 252,
  MAILB: 253,
  MAILA: 254,
  ANY: 255,
} as const

/** The only class that is asked for. RFC 1035 §3.2.4 */
export const CLASS_IN = 1

/** RFC 1035 §4.1.1, RFC 2136, RFC 6891 §9 */
export const Rcode = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5, badVersion: 16 } as const

/** RFC 1035 §4.1.1, RFC 1996, RFC 2136 */
export const Opcode = { query: 0, notify: 4, update: 5 } as const

/** Bits of the flags word. RFC 1035 §4.1.1, RFC 4035 §3.2 */
export const Flag = {
  response: 0x8000,
  authoritative: 0x0400,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  authenticData: 0x0020,
  checkingDisabled: 0x0010,
} as const
