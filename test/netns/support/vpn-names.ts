/** The names that the lab's DNS knows; everything under RFC 2606's example.net. */
export const names = {
  zone: 'example.net',
  /** IPv4 and IPv6. */
  web: 'www.example.net',
  /** One family only. */
  four: 'four.example.net',
  six: 'six.example.net',
  /** Has an HTTPS record, for which a browser goes to https at once: the lab's authority is none of a browser's. */
  modern: 'modern.example.net',
  mail: 'mail.example.net',
  text: 'text.example.net',
  /** Texts of 8 KB in all: an answer for TCP. */
  big: 'big.example.net',
  service: '_http._tcp.example.net',
} as const

/** How many TXT records the big name has, and how long each is, bytes. */
export const bigText = { records: 40, bytes: 200 } as const

/** The ports of the lab's servers, all on the web host. */
export const ports = { http: 80, https: 443, ssh: 22, git: 9418, iperf: 5201, quic: 4433, stun: 3478 } as const

/** Bytes of the large file that the web server has. */
export const bigFileBytes = 3_000_000
