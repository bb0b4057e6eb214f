// Opens an envelope with nothing but docs/envelope.md and Node's own crypto: an
// independent reading of the format, which the tests hold against the golden files.
//
//   node decode.mjs (--data-key | --message-key) KEYFILE [--context NAME=VALUE]... < message > plaintext
//
// KEYFILE holds 64 hexadecimal digits. kmsbrokerd hands out message keys and keeps
// data keys. Nothing is written before the whole message is verified.
import { createDecipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { readFileSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';

const SEGMENT = 65536, TAG = 16, TINK_HEADER = 40;

class Damaged extends Error {}
const insist = (condition, what) => { if (!condition) throw new Damaged(what); };
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
const hkdf = (key, salt, ...info) => Buffer.from(hkdfSync('sha256', key, salt, Buffer.concat(info), 32));

/** The header's fields, read strictly in their order. */
export function parseHeader(message) {
  let at = 0;
  const take = (n) => { insist(at + n <= message.length, 'cut off in the header'); at += n; return message.subarray(at - n, at); };
  const u8 = () => take(1).readUInt8(), u16 = () => take(2).readUInt16BE();
  insist(take(4).toString('latin1') === 'KMSE', 'no envelope');
  insist(u8() === 1, 'version'); insist(u8() === 1, 'suite');
  const length = u16();
  const messageID = take(32), name = take(u8()), wrapped = [];
  for (let n = u8(); n > 0; n--) wrapped.push({ region: take(u8()).toString(), keyID: take(u8()).toString(), blob: take(u16()).toString() });
  const uncommitted = message.subarray(0, at), commitment = take(32);
  insist(at === length, 'length of the header');
  return { messageID, name, wrapped, uncommitted, commitment, header: message.subarray(0, length), segments: message.subarray(length) };
}

/** The one text of an encryption context: ordered by the bytes of the names. */
export function canonical(context) {
  const long = (text) => { const raw = Buffer.from(text), size = Buffer.alloc(2); size.writeUInt16BE(raw.length); return Buffer.concat([size, raw]); };
  const names = Object.keys(context).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const count = Buffer.alloc(2); count.writeUInt16BE(names.length);
  return Buffer.concat([count, ...names.flatMap((name) => [long(name), long(context[name])])]);
}

export function messageKey(h, dataKey, context) {
  const info = ['kmsbroker envelope 1 message key', Buffer.of(1), Buffer.of(h.name.length), h.name, sha256(context)];
  return hkdf(dataKey, h.messageID, ...info.map((part) => Buffer.from(part)));
}

/** The plaintext of a message, or an exception. */
export function open(message, { dataKey, key, context = {} }) {
  const h = parseHeader(message), text = canonical(context);
  key ??= messageKey(h, dataKey, text);
  // One block of HKDF-Expand.
  const commitment = createHmac('sha256', key).update('kmsbroker envelope 1 commitment').update(sha256(h.uncommitted, text)).update(Buffer.of(1)).digest();
  insist(timingSafeEqual(commitment, h.commitment), 'commitment');
  return openTink(h.segments, key, sha256(h.header, text));
}

/** Tink's AES-GCM-HKDF streaming (developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming). */
function openTink(stream, key, associated) {
  insist(stream.length >= TINK_HEADER + TAG && stream[0] === TINK_HEADER, "Tink's header");
  const streamKey = hkdf(key, stream.subarray(1, 33), associated), prefix = stream.subarray(33, TINK_HEADER);
  const plaintext = [];
  for (let n = 0, at = TINK_HEADER; ; n++) {
    const end = Math.min((n + 1) * SEGMENT, stream.length), last = end === stream.length;
    insist(end - at >= TAG, 'a short segment');
    const nonce = Buffer.concat([prefix, Buffer.alloc(5)]);
    nonce.writeUInt32BE(n, 7); nonce[11] = last ? 1 : 0;
    const gcm = createDecipheriv('aes-256-gcm', streamKey, nonce, { authTagLength: TAG });
    gcm.setAuthTag(stream.subarray(end - TAG, end));
    plaintext.push(gcm.update(stream.subarray(at, end - TAG)));
    gcm.final(); // throws when the segment was changed
    if (last) return Buffer.concat(plaintext);
    at = end;
  }
}

if (import.meta.filename === process.argv[1] || import.meta.url === `file://${process.argv[1]}`) {
  const { values } = parseArgs({ options: {
    'data-key': { type: 'string' }, 'message-key': { type: 'string' }, context: { type: 'string', multiple: true, default: [] },
  } });
  const hex = (path) => path && Buffer.from(readFileSync(path, 'latin1').trim(), 'hex');
  const context = Object.fromEntries(values.context.map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]));
  try {
    let rest = open(readFileSync(0), { dataKey: hex(values['data-key']), key: hex(values['message-key']), context });
    while (rest.length > 0) rest = rest.subarray(writeSync(1, rest));
  } catch (error) {
    console.error(`decode: ${error.message}`);
    process.exit(1);
  }
}
