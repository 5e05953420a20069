import { ports } from './vpn-names.ts'

/**
 * A page that shows what a script fetched, and one that looks for the machine's addresses by WebRTC and tells the server what it found: the way
 * in which browsers give away what a proxy hides.
 */
const page = '<!doctype html><link rel="stylesheet" href="style.css"><p id="said"></p><p id="style"></p><script src="script.js"></script>\n'

const script = `fetch('hello.txt').then((answer) => answer.text()).then((text) => {
  document.getElementById('said').textContent = 'the script fetched: ' + text
  document.getElementById('style').textContent = 'colour ' + getComputedStyle(document.getElementById('said')).color
})
`

/** STUN servers come as \`?stun=HOST,HOST\`; the report is a request for \`/report?NAME=CANDIDATES\`. */
const webrtc = `<!doctype html><title>webrtc</title><script>
const query = new URLSearchParams(location.search)
const found = []
const urls = query.get('stun').split(',').map((host) => 'stun:' + host + ':${ports.stun}')
const peer = new RTCPeerConnection({ iceServers: [{ urls }] })
let said = false
const report = () => {
  if (said) return
  said = true
  fetch('/report?' + query.get('name') + '=' + encodeURIComponent(found.join(';') || 'none'))
}
peer.onicecandidate = ({ candidate }) => {
  if (!candidate) report()
  else if (candidate.candidate) found.push(candidate.candidate)
}
peer.onicecandidateerror = (event) => found.push('error ' + event.errorCode + ' ' + event.url)
peer.createDataChannel('leak')
peer.createOffer().then((offer) => peer.setLocalDescription(offer))
setTimeout(report, 15000)
</script>
`

/** What lies in the web server's folder, by name. */
export const pageFiles: Readonly<Record<string, string>> = {
  'index.html': '<!doctype html><title>lab</title>a page of the lab\n',
  'hello.txt': 'hello from a file',
  'style.css': 'p { color: rgb(1, 2, 3) }',
  'script.js': script,
  'page.html': page,
  'webrtc.html': webrtc,
}
