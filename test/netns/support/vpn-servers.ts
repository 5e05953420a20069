import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { certificateAuthority } from '../../support/certificates.ts'
import { type Program, runOk, until } from '../../support/processes.ts'
import { bytesOf } from '../../support/web-server.ts'
import { debianCommand, type Machine, missingPackages } from '../lab/index.ts'
import { bigFileBytes, bigText, names, ports } from './vpn-names.ts'
import { pageFiles } from './vpn-page.ts'

const stunProgram = fileURLToPath(new URL('../../support/stun-server.ts', import.meta.url))
const startsWithinMs = 15_000

/** What every test of the VPN needs on the servers' side: command to Debian package. A test that needs more names it itself. */
export const serverPackages = { nginx: 'nginx-light', dnsmasq: 'dnsmasq-base', git: 'git' } as const

/** Servers that are only there if their package is. */
const optionalServers = { sshd: 'openssh-server', iperf3: 'iperf3', gtlsserver: 'ngtcp2-server' } as const

/** Real servers of the lab, on a web host (dual stack) and on a DNS host, and the files they serve. */
export class VpnServers {
  readonly web: Machine
  readonly dns: Machine
  readonly folder: string
  /** The authority of the web server's certificate, for `--cacert`. */
  readonly authorityFile: string
  /** The private key that may log in by ssh. */
  readonly sshKey: string
  readonly #programs: Program[] = []

  /** Starts all whose packages are there. @param folder an empty one */
  static async start(web: Machine, dns: Machine, folder: string): Promise<VpnServers> {
    const servers = new VpnServers(web, dns, folder)
    await Promise.all([servers.#startDns(), servers.#startGit().then(() => servers.#startNginx()), servers.#startOthers()])
    return servers
  }

  private constructor(web: Machine, dns: Machine, folder: string) {
    this.web = web
    this.dns = dns
    this.folder = folder
    this.authorityFile = join(folder, 'authority.pem')
    this.sshKey = join(folder, 'user-key')
    const authority = certificateAuthority()
    const { certificate, key } = authority.issue(names.web, names.four, names.six, web.address, web.ipv6!)
    writeFileSync(this.authorityFile, authority.certificate)
    writeFileSync(join(folder, 'web.pem'), certificate)
    writeFileSync(join(folder, 'web-key.pem'), key, { mode: 0o600 })
    mkdirSync(join(folder, 'www'))
    writeFileSync(join(folder, 'www', 'big'), Buffer.concat([...bytesOf(bigFileBytes)]))
    for (const [name, text] of Object.entries(pageFiles)) writeFileSync(join(folder, 'www', name), text)
  }

  /** Both addresses of the web host. */
  get addresses(): readonly [string, string] {
    return [this.web.address, this.web.ipv6!]
  }

  /** Requests that the web server has answered, "ADDRESS PORT METHOD URI STATUS" a line. */
  requests(): readonly string[] {
    return readFileSync(join(this.folder, 'requests.log'), 'utf8').split('\n').slice(0, -1)
  }

  /** Questions that the DNS server was asked, "TYPE NAME FROM" a line. */
  questions(): readonly string[] {
    const log = readFileSync(join(this.folder, 'dns.log'), 'utf8')
    return [...log.matchAll(/query\[([^\]]+)\] (\S+) from (\S+)/g)].map(([, type, name, from]) => `${type} ${name} ${from}`)
  }

  async stop(): Promise<void> {
    await Promise.all(this.#programs.splice(0).map((program) => program.stop('SIGTERM').catch(() => null)))
  }

  #start(machine: Machine, command: string, args: readonly string[]): Program {
    const program = machine.start(debianCommand(command), args)
    this.#programs.push(program)
    return program
  }

  async #startDns(): Promise<void> {
    const { zone, web, four, six, modern, mail, text, big, service } = names
    const [address, address6] = this.addresses
    const texts = Array.from({ length: bigText.records }, (_, i) => `--txt-record=${big},${`${i} `.padEnd(bigText.bytes, 'shallot ')}`)
    const args = [
      '--keep-in-foreground',
      '--conf-file=/dev/null',
      '--user=root',
      '--pid-file=',
      '--no-resolv',
      '--no-hosts',
      '--log-queries',
      `--log-facility=${join(this.folder, 'dns.log')}`,
      '--bind-interfaces',
      `--listen-address=${this.dns.address}`,
      `--listen-address=${this.dns.ipv6}`,
      '--local-ttl=60',
      `--local=/${zone}/`,
      '--address=/#/', // nothing else exists
      `--host-record=${web},${address},${address6}`,
      `--host-record=${four},${address}`,
      `--host-record=${six},${address6}`,
      `--host-record=${modern},${address},${address6}`,
      `--host-record=${mail},${address}`,
      `--mx-host=${zone},${mail},10`,
      `--srv-host=${service},${web},80,1,2`,
      `--txt-record=${text},said by the lab`,
      ...texts,
      // RFC 9460 §2.2: priority 1, target ".", alpn (key 1) "h3", "h2".
      `--dns-rr=${modern},65,00010000010006026833026832`,
      // A type for private use (RFC 6895 §3.1), of no known form.
      `--dns-rr=${zone},65280,deadbeef`,
    ]
    const program = this.#start(this.dns, 'dnsmasq', args)
    await until('dnsmasq answers', startsWithinMs, () => {
      if (program.exit) throw new Error(`dnsmasq ended: ${program.tail()}`)
      return readFileSync(join(this.folder, 'dns.log'), 'utf8').includes('started')
    })
  }

  /** A bare repository, with what the "dumb" HTTP protocol needs: nginx serves it as files. */
  async #startGit(): Promise<void> {
    const work = join(this.folder, 'work')
    const bare = join(this.folder, 'www', 'project.git')
    const env = {
      HOME: this.folder,
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_AUTHOR_NAME: 'Lab',
      GIT_AUTHOR_EMAIL: 'lab@example.net',
      GIT_COMMITTER_NAME: 'Lab',
      GIT_COMMITTER_EMAIL: 'lab@example.net',
    }
    const script = `git init -q -b main '${work}' && cd '${work}' && head -c 300000 '${this.folder}/www/big' > data && echo hello > README &&
git add . && git commit -qm first && git clone -q --bare '${work}' '${bare}' && git -C '${bare}' update-server-info`
    await runOk('sh', ['-ec', script], { env })
    const base = join(this.folder, 'www')
    const args = ['daemon', '--reuseaddr', '--export-all', `--base-path=${base}`, ...this.addresses.map((one) => `--listen=${one}`), base]
    this.#programs.push(this.web.start('git', args, { env }))
  }

  async #startNginx(): Promise<void> {
    const { folder } = this
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/tmp;`).join(' ')
    const types = 'types { text/html html; text/css css; text/javascript js; text/plain txt; } default_type application/octet-stream;'
    const listen = [this.web.address, `[${this.web.ipv6}]`].map((on) => `listen ${on}:80; listen ${on}:443 ssl;`).join(' ')
    const certificate = `ssl_certificate ${folder}/web.pem; ssl_certificate_key ${folder}/web-key.pem;`
    const config = `daemon off; user root; worker_processes 1; pid ${folder}/nginx.pid; error_log ${folder}/nginx.log;
events { } http {
  log_format lab '$remote_addr $server_port $request_method $request_uri $status';
  access_log ${folder}/requests.log lab; ${types} ${temporary}
  server { ${listen} ${certificate} root ${folder}/www; location = /report { return 204; } }
}
`
    writeFileSync(join(folder, 'nginx.conf'), config)
    writeFileSync(join(folder, 'requests.log'), '')
    const program = this.#start(this.web, 'nginx', ['-p', folder, '-c', join(folder, 'nginx.conf')])
    await this.#listens(program, ports.https)
  }

  async #startOthers(): Promise<void> {
    const there = (command: keyof typeof optionalServers): boolean => missingPackages({ [command]: optionalServers[command] }).length === 0
    const [address, address6] = this.addresses
    const { folder } = this
    const starting: Promise<unknown>[] = []
    starting.push(this.#startStun())
    if (there('sshd')) starting.push(this.#startSshd())
    if (there('iperf3')) starting.push(this.#listens(this.#start(this.web, 'iperf3', ['--server', '--forceflush']), ports.iperf))
    if (there('gtlsserver'))
      for (const on of [address, address6])
        this.#start(this.web, 'gtlsserver', [
          '--quiet',
          `--htdocs=${folder}/www`,
          on,
          String(ports.quic),
          `${folder}/web-key.pem`,
          `${folder}/web.pem`,
        ])
    await Promise.all(starting)
  }

  async #startStun(): Promise<void> {
    const listen = [`/ip4/${this.web.address}/udp/${ports.stun}`, `/ip6/${this.web.ipv6}/udp/${ports.stun}`]
    const program = this.web.startNode(stunProgram, listen)
    this.#programs.push(program)
    await program.waitFor(/^ready/m, startsWithinMs)
  }

  async #startSshd(): Promise<void> {
    const { folder } = this
    const hostKey = join(folder, 'host-key')
    for (const key of [hostKey, this.sshKey]) await runOk('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
    const authorized = join(folder, 'authorized-keys')
    writeFileSync(authorized, readFileSync(`${this.sshKey}.pub`), { mode: 0o600 })
    chmodSync(authorized, 0o600)
    mkdirSync('/run/sshd', { recursive: true }) // sshd's empty directory for its unprivileged half
    const lines = [
      'UsePAM no',
      'StrictModes no',
      'PermitRootLogin prohibit-password',
      'UseDNS no',
      `PidFile ${folder}/sshd.pid`,
      `AuthorizedKeysFile ${authorized}`,
      `HostKey ${hostKey}`,
      'Subsystem sftp internal-sftp',
      `ListenAddress ${this.web.address}`,
      `ListenAddress ${this.web.ipv6}`,
    ]
    writeFileSync(join(folder, 'sshd-config'), `${lines.join('\n')}\n`)
    const program = this.#start(this.web, 'sshd', ['-D', '-e', '-f', join(folder, 'sshd-config')])
    await until('sshd listens', startsWithinMs, () => {
      if (program.exit) throw new Error(`sshd ended: ${program.tail()}`)
      return program.log.includes('Server listening')
    })
  }

  async #listens(program: Program, port: number): Promise<void> {
    await until(`${program.name} listens`, startsWithinMs, async () => {
      if (program.exit) throw new Error(`it ended: ${program.tail()}`)
      return (await this.web.runOk('ss', ['-Hltn', `sport = :${port}`])).trim() !== ''
    })
  }
}
