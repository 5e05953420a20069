import { createHash } from 'node:crypto'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Namespace } from '../support/namespace.ts'
import { hasCommand, Program, run, runOk, startTestnet, type Testnet, temporaryFolder, until } from '../support/processes.ts'
import { bytesOf } from '../support/web-server.ts'

// Programs written elsewhere, as their users start them, each through the mesh to nginx or sshd. All of it runs in a namespace without a way
// out, and the programs do not know the site's name: only the exit does.

const site = 'site.shallot.test'
const reason = (await Namespace.reasonAgainst()) ?? ((await hasCommand('nginx')) ? null : 'needs nginx')
const folder = temporaryFolder('interop')
const bigFile = Buffer.concat([...bytesOf(20_000_000)])
let space: Namespace
let testnet: Testnet
let nginx: Program

/** A test that says why it is skipped where a program it drives is missing. */
async function testWith(commands: readonly string[], name: string, body: () => Promise<void>): Promise<void> {
  const missing: string[] = []
  for (const command of commands) if (!(await hasCommand(command))) missing.push(command)
  const why = reason ?? (missing.length > 0 ? `needs ${missing.join(', ')}` : null)
  if (why === null) test(name, body)
  else test.skip(`${name} (${why})`, body)
}

beforeAll(async () => {
  if (reason !== null) return
  space = await Namespace.create([site])
  nginx = startNginx()
  testnet = await startTestnet({ wrapper: space.inside })
  const fetched = async (): Promise<boolean> =>
    (await run('curl', ['-sf', `http://${space.address}/`], { wrapper: space.outside })).code === 0
  await until('nginx answers', 10_000, fetched)
})

afterAll(async () => {
  await testnet?.stop()
  await nginx?.stop()
  await space?.remove()
  folder.remove()
})

/** A program beside the mesh, to its end; gives its standard output. */
function output(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  return runOk(command, args, { wrapper: space.outside, env: { HOME: folder.path, ...env }, timeoutMs: 60_000 })
}

const port = (address: string): string => address.slice(address.lastIndexOf(':') + 1)

await testWith(['curl'], 'the name is known to the exit only', async () => {
  expect((await run('curl', ['-sS', `http://${site}/`], { wrapper: space.outside })).code).toBe(6)
  expect(await output('curl', ['-sSf', '-x', `socks5h://${testnet.ready.socks}`, `http://${site}/`])).toContain('a page of nginx')
})

await testWith(['torsocks', 'curl'], 'torsocks runs curl with a name', async () => {
  const args = ['--address', '127.0.0.1', '--port', port(testnet.ready.socks), 'curl', '-sSf', `http://${site}/`]
  expect(await output('torsocks', args)).toContain('a page of nginx')
})

await testWith(['proxychains4', 'curl'], 'proxychains4 runs curl with a name', async () => {
  const config = join(folder.path, 'proxychains.conf')
  writeFileSync(config, `strict_chain\nproxy_dns\n[ProxyList]\nsocks5 127.0.0.1 ${port(testnet.ready.socks)}\n`)
  expect(await output('proxychains4', ['-q', '-f', config, 'curl', '-sSf', `http://${site}/`])).toContain('a page of nginx')
})

await testWith(['wget'], 'wget downloads through the HTTP proxy, and goes on where it was broken off', async () => {
  const file = join(folder.path, 'wget')
  const args = ['-q', '-c', '-O', file, '-e', 'use_proxy=yes', '-e', `http_proxy=http://${testnet.ready.http}`, `http://${site}/big`]
  writeFileSync(file, bigFile.subarray(0, 7_654_321))
  await output('wget', args)
  expect(await output('sha256sum', [file])).toContain(sha256(bigFile))
})

await testWith(['python3'], "Python's SOCKS library connects with a name and credentials, and sends datagrams", async () => {
  const script = join(folder.path, 'client.py')
  writeFileSync(script, pythonClient)
  const python = (await run('/usr/bin/python3', ['-c', 'import socks'])).code === 0 ? '/usr/bin/python3' : 'python3'
  const answer = await output(python, [script, port(testnet.ready.socks), site, space.address])
  expect(answer).toContain('a page of nginx')
  expect(answer).toContain('datagram: HELLO')
})

await testWith(['ssh', 'sshd', 'ssh-keygen', 'nc'], 'ssh works through a proxy command, over SOCKS and over the HTTP proxy', async () => {
  const sshd = await startSshd()
  try {
    for (const proxy of [`-X 5 -x ${testnet.ready.socks}`, `-X connect -x ${testnet.ready.http}`]) {
      const args = [
        '-F',
        'none',
        '-i',
        join(folder.path, 'user-key'),
        '-o',
        `ProxyCommand=nc ${proxy} %h %p`,
        '-p',
        '2222',
        '-o',
        'BatchMode=yes',
      ]
      args.push('-o', `UserKnownHostsFile=${join(folder.path, 'known-hosts')}`, '-o', 'StrictHostKeyChecking=accept-new', `root@${site}`)
      expect(await output('ssh', [...args, 'echo', 'said by the server'])).toBe('said by the server\n')
      expect(await output('ssh', [...args, `cat ${join(folder.path, 'www', 'big')} | sha256sum`])).toContain(sha256(bigFile))
      const copied = await output('sh', ['-c', '"$@" | sha256sum', 'sh', 'ssh', ...args, `cat ${join(folder.path, 'www', 'big')}`])
      expect(copied).toContain(sha256(bigFile))
    }
  } finally {
    await sshd.stop()
  }
})

await testWith(['chromium'], 'Chromium shows a page with a script, a style sheet and what the script fetches', async () => {
  for (const proxy of [`socks5://${testnet.ready.socks}`, `http://${testnet.ready.http}`]) {
    const args = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking']
    args.push(
      '--disable-component-update',
      '--disable-sync',
      '--disable-dev-shm-usage',
      `--user-data-dir=${join(folder.path, `chromium-${proxy.slice(0, 4)}`)}`,
    )
    args.push(`--proxy-server=${proxy}`, '--virtual-time-budget=15000', '--dump-dom', `http://${site}/page.html`)
    const page = await output('chromium', args)
    expect(page).toContain('<p id="said">the script fetched: hello from a file</p>')
    expect(page).toContain('<p id="style">colour rgb(1, 2, 3)</p>')
  }
})

function startNginx(): Program {
  const www = join(folder.path, 'www')
  mkdirSync(www)
  writeFileSync(join(www, 'index.html'), '<!doctype html><title>nginx</title>a page of nginx\n')
  writeFileSync(join(www, 'big'), bigFile)
  writeFileSync(join(www, 'hello.txt'), 'hello from a file')
  writeFileSync(join(www, 'style.css'), 'p { color: rgb(1, 2, 3) }')
  writeFileSync(join(www, 'script.js'), pageScript)
  writeFileSync(
    join(www, 'page.html'),
    '<!doctype html><link rel="stylesheet" href="style.css"><p id="said"></p><p id="style"></p><script src="script.js"></script>\n',
  )
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder.path}/tmp;`).join(' ')
  const types = 'types { text/html html; text/css css; text/javascript js; text/plain txt; }'
  const config = join(folder.path, 'nginx.conf')
  const server = `server { listen ${space.address}:80; root ${www}; }`
  writeFileSync(
    config,
    `daemon off; user root; worker_processes 1; pid ${folder.path}/nginx.pid; error_log ${folder.path}/nginx.log;
events { } http { access_log off; ${types} ${temporary} ${server} }
`,
  )
  return Program.start('nginx', ['-p', folder.path, '-c', config], { wrapper: space.outside })
}

const pageScript = `fetch('hello.txt').then((answer) => answer.text()).then((text) => {
  document.getElementById('said').textContent = 'the script fetched: ' + text
  document.getElementById('style').textContent = 'colour ' + getComputedStyle(document.getElementById('said')).color
})
`

const pythonClient = `import socket, socks, sys, threading
port, name, address = int(sys.argv[1]), sys.argv[2], sys.argv[3]
s = socks.socksocket()
s.set_proxy(socks.SOCKS5, '127.0.0.1', port, True, 'someone', 'secret')
s.connect((name, 80))
s.sendall(b'GET / HTTP/1.0\\r\\nHost: ' + name.encode() + b'\\r\\n\\r\\n')
body = b''
while True:
    piece = s.recv(65536)
    if not piece:
        break
    body += piece
print(body.decode())

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 0))
def answer():
    data, sender = server.recvfrom(2048)
    server.sendto(data.upper(), sender)
threading.Thread(target=answer, daemon=True).start()
u = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
u.set_proxy(socks.SOCKS5, '127.0.0.1', port)
u.settimeout(10)
u.sendto(b'hello', server.getsockname())
print('datagram:', u.recvfrom(2048)[0].decode())
`

async function startSshd(): Promise<Program> {
  const hostKey = join(folder.path, 'host-key')
  const userKey = join(folder.path, 'user-key')
  for (const key of [hostKey, userKey]) await runOk('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  const authorized = join(folder.path, 'authorized-keys')
  await runOk('cp', [`${userKey}.pub`, authorized])
  chmodSync(authorized, 0o600)
  mkdirSync('/run/sshd', { recursive: true }) // sshd's empty directory for its unprivileged half
  const config = join(folder.path, 'sshd-config')
  const lines = ['UsePAM no', 'StrictModes no', 'PermitRootLogin prohibit-password', `PidFile ${folder.path}/sshd.pid`, 'UseDNS no']
  writeFileSync(
    config,
    [...lines, `AuthorizedKeysFile ${authorized}`, `ListenAddress ${space.address}:2222`, `HostKey ${hostKey}`, ''].join('\n'),
  )
  const sshd = (await runOk('sh', ['-c', 'command -v sshd'])).trim()
  const program = Program.start(sshd, ['-D', '-e', '-f', config], { wrapper: space.outside })
  await expect.poll(() => program.log, { timeout: 10_000 }).toContain('Server listening')
  return program
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
