import fs from 'node:fs'
import { endianness } from 'node:os'
import { tunNatError } from './errors.ts'
import { loadNetlink } from './netlink-calls.ts'

const LITTLE = endianness() === 'LE'
/** linux/netfilter/nfnetlink.h and nf_tables.h: the group of changes, NFNL_SUBSYS_NFTABLES with its messages, NFTA_TABLE_NAME, NFPROTO_INET. */
const NFNLGRP_NFTABLES = 7
const NEW_TABLE = 0xa00
const DELETE_TABLE = 0xa02
const TABLE_NAME = 1
const NFPROTO_INET = 1
const MESSAGE_BYTES = 65_536

/**
 * Watches a table of nftables (family inet): a host's firewall that is loaded anew begins with `flush ruleset`, which takes everybody's tables.
 * @param gone called, in a turn of its own, when the table is not there after a change, or when that is not known
 * @returns what ends it
 * @throws ShallotError 'exit-tun-unavailable'
 */
export async function watchTable(name: string, gone: () => void): Promise<() => void> {
  const calls = await loadNetlink()
  const fd = calls.open({ group: NFNLGRP_NFTABLES })
  if (fd < 0) throw tunNatError('exit-tun-unavailable', 'no netlink socket to watch the rules', 'later')
  const bytes = new Uint8Array(MESSAGE_BYTES)
  const end = calls.watch(fd, () => {
    let is = true
    for (;;) {
      const length = calls.receiveNow(fd, bytes)
      if (length === 'nothing') break
      if (length === 'lost') is = false
      else is = tableAfter(bytes.subarray(0, length), name) ?? is
    }
    if (!is) gone()
  })
  return () => {
    end()
    fs.closeSync(fd)
  }
}

/** Whether a table is there after these messages of the kernel's; null: they say nothing of it. */
export function tableAfter(bytes: Uint8Array, name: string): boolean | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let is: boolean | null = null
  for (let at = 0; at + 20 <= bytes.length; ) {
    const length = view.getUint32(at, LITTLE)
    if (length < 16 || at + length > bytes.length) break
    const type = view.getUint16(at + 4, LITTLE)
    if (
      (type === NEW_TABLE || type === DELETE_TABLE) &&
      bytes[at + 16] === NFPROTO_INET &&
      nameIn(bytes, view, at + 20, at + length) === name
    )
      is = type === NEW_TABLE
    at += (length + 3) & ~3
  }
  return is
}

function nameIn(bytes: Uint8Array, view: DataView, start: number, end: number): string | null {
  for (let at = start; at + 4 <= end; ) {
    const length = view.getUint16(at, LITTLE)
    if (length < 4 || at + length > end) return null
    // With its zero at the end.
    if (view.getUint16(at + 2, LITTLE) === TABLE_NAME) return new TextDecoder().decode(bytes.subarray(at + 4, at + length - 1))
    at += (length + 3) & ~3
  }
  return null
}
