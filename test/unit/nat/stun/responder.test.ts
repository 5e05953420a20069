import { describe, expect, test } from 'vitest'
import { formatIp, fromHex, parseIp, SeededRandom } from '../../../../src/base/index.ts'
import { defaultStunServerConfig, formatEndpoint, parseEndpoint, type StunServerConfig } from '../../../../src/nat/stun/index.ts'
import { addressOf, attributeOf, BINDING, decodeStun, encodeStun, type StunAttribute } from '../../../../src/nat/stun/message.ts'
import { StunResponder, type StunSite, type StunSocketPlace } from '../../../../src/nat/stun/responder.ts'

const A1 = parseIp('11.0.1.1')
const A2 = parseIp('11.0.1.2')
const two: StunSite = { addresses: [A1, A2], ports: [4460, 4461] }
const one: StunSite = { addresses: [A1], ports: [4460, 4461] }
const client = parseEndpoint('11.0.9.9:50000')
const id = fromHex('000102030405060708090a0b')
const classicId = fromHex('000102030405060708090a0b0c0d0e0f')
const filler = (length: number): StunAttribute => ({ type: 'filler', length })

type Limits = Partial<StunServerConfig['limits']>
const responder = (limits: Limits = {}, otherPortAnswers = true): StunResponder =>
  new StunResponder({ limits: { ...defaultStunServerConfig.limits, ...limits }, otherPortAnswers }, 0)

/** A request filled up to the longest answer, unless `attributes` fill it already. */
function request(attributes: readonly StunAttribute[] = [], transactionId = id): Uint8Array {
  const bare = encodeStun({ class: 'request', method: BINDING, transactionId }, attributes)
  return bare.length >= 68
    ? bare
    : encodeStun({ class: 'request', method: BINDING, transactionId }, [...attributes, filler(64 - bare.length)])
}
const change = (ip: boolean, port: boolean): StunAttribute => ({ type: 'change-request', ip, port })

function ask(bytes: Uint8Array, site: StunSite = two, at: StunSocketPlace = { address: 0, port: 0 }, by = responder()) {
  const answer = by.handle(bytes, client, site, at, 0)
  if (answer === null) return null
  const message = decodeStun(answer.bytes)
  const ip = site.addresses[answer.from.address] ?? parseIp('0.0.0.0')
  const text = (type: Parameters<typeof addressOf>[1]): string | null => {
    const found = addressOf(message, type)
    return found === null ? null : formatEndpoint(found)
  }
  const error = attributeOf(message, 'error-code')
  const named = attributeOf(message, 'unknown-attributes')
  return {
    message,
    text,
    from: `${formatIp(ip)}:${site.ports[answer.from.port]}`,
    to: formatEndpoint(answer.to),
    bytes: answer.bytes,
    code: error?.code ?? null,
    error,
    unknown: named?.types ?? [],
  }
}

describe('RFC 5780 §6.1, table 1', () => {
  const places: StunSocketPlace[] = [0, 1].flatMap((address) => [0, 1].map((port) => ({ address: address as 0 | 1, port: port as 0 | 1 })))
  for (const at of places) {
    for (const [ip, port] of [
      [false, false],
      [true, false],
      [false, true],
      [true, true],
    ] as const) {
      test(`asked at ${at.address}:${at.port}, change IP ${ip}, change port ${port}`, () => {
        const name = (address: number, portIndex: number): string => `${formatIp([A1, A2][address]!)}:${[4460, 4461][portIndex]}`
        const from = name(ip ? 1 - at.address : at.address, port ? 1 - at.port : at.port)
        const answer = ask(request([change(ip, port)]), two, at)!
        expect(answer).toMatchObject({ from, to: '11.0.9.9:50000', message: { class: 'success', transactionId: id } })
        expect(answer.text('response-origin')).toBe(from)
        expect(answer.text('other-address')).toBe(name(1 - at.address, 1 - at.port))
        expect([answer.text('xor-mapped-address'), answer.text('mapped-address')]).toEqual(['11.0.9.9:50000', '11.0.9.9:50000'])
        expect(answer.bytes.length).toBe(68)
      })
    }
  }
})

describe('a server with one address', () => {
  test('has no OTHER-ADDRESS, refuses to change the address, and changes the port', () => {
    expect(ask(request(), one)!.text('other-address')).toBeNull()
    expect(ask(request([change(true, false)]), one)).toMatchObject({ code: 420, unknown: [3], from: '11.0.1.1:4460' })
    expect(ask(request([change(true, true)]), one)).toMatchObject({ code: 420, unknown: [3] })
    expect(ask(request([change(false, true)]), one)).toMatchObject({ code: null, from: '11.0.1.1:4461' })
  })

  test('says nothing of itself where it does not know how others see it', () => {
    const answer = ask(request(), { addresses: [null], ports: [4460, 4461] })
    expect(answer!.message.attributes.map(({ type }) => type)).toEqual(['xor-mapped-address', 'mapped-address'])
  })

  test('is silent to classic requests for another address, whose clients take an error for an answer', () => {
    expect(ask(request([change(true, true)], classicId), one)).toBeNull()
    expect(ask(request([change(false, true)], classicId), one)).toMatchObject({ from: '11.0.1.1:4461' })
  })
})

describe('RFC 3489', () => {
  test('is answered in its own words', () => {
    const answer = ask(request([change(false, false)], classicId))!
    expect(answer.message).toMatchObject({ classic: true, class: 'success', transactionId: classicId })
    expect(answer.message.attributes.map(({ type }) => type)).toEqual(['mapped-address', 'source-address', 'changed-address'])
    expect([answer.text('mapped-address'), answer.text('source-address'), answer.text('changed-address')]).toEqual([
      '11.0.9.9:50000',
      '11.0.1.1:4460',
      '11.0.1.2:4461',
    ])
  })

  test('RESPONSE-ADDRESS is refused: it would send answers to anyone', () => {
    for (const transactionId of [id, classicId]) {
      const answer = ask(request([{ type: 'response-address', endpoint: parseEndpoint('11.7.7.7:53') }], transactionId))!
      expect(answer).toMatchObject({ code: 420, to: '11.0.9.9:50000' })
      expect(answer.unknown[0]).toBe(2)
    }
  })
})

describe('what is refused', () => {
  test('unknown attributes that must be understood, by name', () => {
    // PRIORITY of ICE, and one that nobody has.
    const attributes = ['0024000400000001', '7abc000400000000', `80220024${'74'.repeat(36)}`].join('')
    const bytes = fromHex(`00010038${'2112a442000102030405060708090a0b'}${attributes}`)
    expect(ask(bytes)).toMatchObject({ code: 420, unknown: [0x24, 0x7abc] })
  })

  test('PADDING with RESPONSE-PORT, and port 0', () => {
    expect(
      ask(
        request([
          { type: 'response-port', port: 9 },
          { type: 'padding', length: 4 },
        ]),
      ),
    ).toMatchObject({ code: 400 })
    expect(ask(request([{ type: 'response-port', port: 0 }]))).toMatchObject({ code: 400 })
  })

  test('RESPONSE-PORT where the operator does not want it; else it is the same address at that port', () => {
    const wanted = request([{ type: 'response-port', port: 4321 }])
    expect(ask(wanted)).toMatchObject({ code: null, to: '11.0.9.9:4321' })
    expect(ask(wanted, two, { address: 0, port: 0 }, responder({}, false))).toMatchObject({
      code: 420,
      unknown: [0x27],
      to: '11.0.9.9:50000',
    })
  })

  test('is told without words when these would make the answer too long', () => {
    const short = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [
      { type: 'response-address', endpoint: client },
      { type: 'filler', length: 0 },
    ])
    expect(ask(short)).toMatchObject({ code: 420, error: { reason: '' } })
    expect(ask(request([{ type: 'response-address', endpoint: client }]))).toMatchObject({
      code: 420,
      error: { reason: 'Unknown Attribute' },
    })
  })

  test.each([
    ['answers', encodeStun({ class: 'success', method: BINDING, transactionId: id }, [filler(60)])],
    ['indications', encodeStun({ class: 'indication', method: BINDING, transactionId: id }, [filler(60)])],
    ['other methods', encodeStun({ class: 'request', method: 3, transactionId: id }, [filler(60)])],
    ['noise', new SeededRandom(1).bytes(100)],
    ['nothing', new Uint8Array(0)],
    ['more than it takes', encodeStun({ class: 'request', method: BINDING, transactionId: id }, [filler(2048)])],
    ['a wrong fingerprint', fromHex('000100082112a442000102030405060708090a0b8028000400000000')],
  ])('%s get no answer at all', (_, bytes) => {
    const by = responder()
    expect(ask(bytes, two, { address: 0, port: 0 }, by)).toBeNull()
    expect(by.stats()).toMatchObject({ droppedMalformed: 1, requests: 0, sources: 0 })
  })

  test.each(['0.0.0.0:9', '224.0.0.1:9', '255.255.255.255:9', '11.0.9.9:0', '[::]:9', '[ff02::1]:9'])(
    'a source that cannot be one: %s',
    (text) => {
      expect(responder().handle(request(), parseEndpoint(text), two, { address: 0, port: 0 }, 0)).toBeNull()
    },
  )
})

describe('extras', () => {
  test('a fingerprint is answered by one, as the last attribute', () => {
    const bytes = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [filler(60), { type: 'fingerprint' }])
    expect(ask(bytes)!.message.attributes.at(-1)).toEqual({ type: 'fingerprint' })
    const short = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [{ type: 'fingerprint' }])
    expect(ask(short)!.message.attributes.at(-1)).toEqual({ type: 'fingerprint' })
  })

  test('PADDING is answered by as much as makes the answer as long as the request', () => {
    for (const length of [1, 4, 100, 1500]) {
      const bytes = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [filler(60), { type: 'padding', length }])
      const answer = ask(bytes)!
      expect(attributeOf(answer.message, 'padding')!.length).toBe(length)
      expect(answer.bytes.length).toBeLessThanOrEqual(bytes.length)
    }
    const long = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [{ type: 'padding', length: 1500 }])
    expect(ask(long)!.bytes.length).toBe(long.length)
  })
})

describe('never an amplifier', () => {
  test('with no allowance, no address is ever sent more than came from it', () => {
    const seed = Number(process.env.SHALLOT_FUZZ_SEED ?? Date.now() % 0x1_0000_0000)
    const random = new SeededRandom(seed)
    const by = responder({ allowanceBytesPerMinute: 0, sources: 16 })
    const balance = new Map<string, number>()
    let sent = 0
    for (let i = 0, now = 0; i < 20_000; i++) {
      now += random.int(20)
      const from = { ip: parseIp(`11.0.9.${random.int(24)}`), port: 1 + random.int(9) }
      const attributes = [change(random.int(2) === 0, random.int(2) === 0), ...(random.int(3) === 0 ? [filler(random.int(80))] : [])]
      const transactionId = random.int(2) === 0 ? id : classicId
      const bytes = encodeStun({ class: 'request', method: BINDING, transactionId }, random.int(4) === 0 ? [] : attributes)
      const answer = by.handle(bytes, from, random.int(2) === 0 ? one : two, { address: 0, port: 0 }, now)
      const key = formatIp(from.ip)
      balance.set(key, (balance.get(key) ?? 0) + bytes.length - (answer?.bytes.length ?? 0))
      sent += answer?.bytes.length ?? 0
      expect(balance.get(key), `seed ${seed}, datagram ${i}`).toBeGreaterThanOrEqual(0)
    }
    expect(sent).toBeGreaterThan(100_000)
    expect(by.stats().droppedOverBytes).toBeGreaterThan(0)
  })

  test('short requests save up for an answer: the next one of the same address is answered', () => {
    const by = responder({ allowanceBytesPerMinute: 0 })
    const short = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [])
    const answers = Array.from({ length: 12 }, () => ask(short, one, { address: 0, port: 0 }, by)?.bytes.length ?? 0)
    expect(answers).toEqual([0, 32, 0, 32, 32, 0, 32, 32, 0, 32, 0, 32])
  })

  test('the allowance lets the first short ones through, and ends', () => {
    const by = responder({ answersPerSecondPerSource: 1000 })
    const short = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [])
    let received = 0
    let sent = 0
    for (let i = 0; i < 1000; i++) {
      received += short.length
      sent += ask(short, two, { address: 0, port: 0 }, by)?.bytes.length ?? 0
    }
    expect(sent).toBeLessThanOrEqual(received + 512)
    expect(sent).toBeGreaterThan(received)
  })

  test('forged sources all over the world get the allowance of all, and the table stays small', () => {
    const by = responder()
    const short = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [])
    for (let i = 0; i < 50_000; i++) {
      const ip = parseIp(`11.${i >> 16}.${(i >> 8) & 255}.${i & 255}`)
      by.handle(short, { ip, port: 53 }, two, { address: 0, port: 0 }, i / 50)
    }
    const { bytesReceived, bytesSent, sources } = by.stats()
    expect(bytesReceived).toBe(1_000_000)
    // One second of them.
    expect(bytesSent).toBeLessThan(20_000)
    expect(sources).toBe(8_192)
  })

  test('an IPv6 host has one rate, whatever addresses of its network it uses', () => {
    const by = responder()
    let answers = 0
    const site: StunSite = { addresses: [parseIp('2001:db8:1::1')], ports: [4460, 4461] }
    const long = encodeStun({ class: 'request', method: BINDING, transactionId: id }, [filler(92)])
    for (let i = 0; i < 500; i++)
      if (by.handle(long, { ip: parseIp(`2001:db8:9::${i.toString(16)}`), port: 1 }, site, { address: 0, port: 0 }, 0) !== null) answers++
    expect(answers).toBe(60)
  })

  test('one source and all together have a rate, and one that asks too much takes nothing from the others', () => {
    const by = responder({ answersPerSecond: 100, answersPerSecondPerSource: 10 })
    const from = (ip: string, count: number): number =>
      Array.from({ length: count }, () => by.handle(request(), { ip: parseIp(ip), port: 1 }, two, { address: 0, port: 0 }, 0)).filter(
        (answer) => answer !== null,
      ).length
    expect(from('11.0.9.1', 10_000)).toBe(30)
    expect([2, 3, 4, 5].map((i) => from(`11.0.9.${i}`, 40))).toEqual([30, 30, 10, 0])
    expect(by.stats()).toMatchObject({ answers: 100, droppedOverRate: 10_060 })
  })
})
