'use strict';
// Calls between two processes over descriptor 4. Only plain data is sent: JSON values, undefined, NaN, infinities, -0, big
// integers, dates, regular expressions, maps, sets and bytes. A function is sent as a handle that calls the function in its process.
const { readSync, writeSync } = require('node:fs');
const { parse, stringify } = JSON; // kept, because a candidate could replace them
const PEER = 4, LONGEST = 1 << 24, DEEPEST = 200;

class NotPlain extends Error {}
const own = [], numbers = new Map(); // functions of this process, by number
const foreign = new Map(), handles = new WeakMap(); // functions of the other process

// The length and the content of a message usually come in one read, which matters in tests with thousands of messages.
const chunk = Buffer.allocUnsafeSlow(1 << 16);
let from = 0, to = 0;
function readExactly(size) {
  const data = Buffer.allocUnsafe(size);
  for (let at = 0; at < size; ) {
    if (from === to) {
      [from, to] = [0, readSync(PEER, chunk, 0, chunk.length, null)];
      if (to === 0) throw new Error('the other process has ended');
    }
    const taken = chunk.copy(data, at, from, Math.min(to, from + size - at));
    from += taken;
    at += taken;
  }
  return data;
}

function receive() {
  const size = readExactly(4).readUInt32BE(0);
  if (size > LONGEST) throw new Error('the message is too long');
  return parse(readExactly(size).toString('utf8'));
}

function send(message) {
  const text = stringify(message), size = Buffer.byteLength(text);
  if (size > LONGEST) throw new NotPlain('too much data');
  const whole = Buffer.allocUnsafe(4 + size);
  whole.writeUInt32BE(size, 0);
  whole.write(text, 4);
  state.sent++;
  for (let at = 0; at < whole.length; ) at += writeSync(PEER, whole, at);
}

function encode(value, depth = 0) {
  if (depth > DEEPEST) throw new NotPlain('nested too deeply');
  const inner = (item) => encode(item, depth + 1);
  switch (typeof value) {
    case 'string': case 'boolean': return value;
    case 'undefined': return { u: 1 };
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0) ? value : { n: Object.is(value, -0) ? '-0' : String(value) };
    case 'bigint': return { b: String(value) };
    case 'function': return encodeFunction(value);
    case 'object': break;
    default: throw new NotPlain('a ' + typeof value + ' is not plain data');
  }
  if (value === null) return null;
  const kind = Object.getPrototypeOf(value);
  if (kind === Array.prototype && Array.isArray(value)) {
    if (Object.keys(value).some((key) => String(key >>> 0) !== key)) throw new NotPlain('an array with properties');
    const items = [];
    for (let at = 0; at < value.length; at++) items.push(at in value ? inner(value[at]) : { h: 1 });
    return { a: items };
  }
  if (kind === Object.prototype || kind === null) {
    if (Object.getOwnPropertySymbols(value).length) throw new NotPlain('a symbol is not plain data');
    const items = [];
    for (const [key, found] of Object.entries(Object.getOwnPropertyDescriptors(value))) {
      if (!('value' in found) || !found.enumerable) throw new NotPlain('a getter is not plain data');
      items.push([key, inner(found.value)]);
    }
    return { o: items, z: kind === null ? 1 : 0 };
  }
  if (Reflect.ownKeys(value).length && !ArrayBuffer.isView(value) && kind !== RegExp.prototype)
    throw new NotPlain('an object of a class is not plain data');
  if (kind === Date.prototype) return { d: encode(value.getTime()) };
  if (kind === RegExp.prototype) return { r: [value.source, value.flags, value.lastIndex] };
  if (kind === Map.prototype) return { m: [...value].map(([key, item]) => [inner(key), inner(item)]) };
  if (kind === Set.prototype) return { s: [...value].map(inner) };
  if (kind === Buffer.prototype) return { y: value.toString('base64'), k: 1 };
  if (kind === Uint8Array.prototype) return { y: Buffer.from(value).toString('base64'), k: 0 };
  throw new NotPlain('an object of a class is not plain data');
}

function encodeFunction(value) {
  if (handles.has(value)) return { g: handles.get(value) };
  const named = Object.getOwnPropertyNames(value).filter((key) => !['length', 'name', 'prototype', 'arguments', 'caller'].includes(key));
  if (named.length || /^class\b/.test(Function.prototype.toString.call(value))) throw new NotPlain('a class is not plain data');
  if (!numbers.has(value)) numbers.set(value, own.push(value) - 1);
  return { f: numbers.get(value), l: value.length, n: String(value.name) };
}

// A candidate may send a function only by itself, not inside an object: a function in an object can determine how it compares.
function decode(data, inside = false) {
  const inner = (item) => decode(item, true);
  if (data === null || typeof data !== 'object') return data;
  if ('u' in data) return undefined;
  if ('n' in data && !('f' in data)) return Number(data.n);
  if ('b' in data) return BigInt(data.b);
  if ('d' in data) return new Date(decode(data.d));
  if ('m' in data) return new Map(data.m.map(([key, item]) => [inner(key), inner(item)]));
  if ('s' in data) return new Set(data.s.map(inner));
  if ('y' in data) return data.k ? Buffer.from(data.y, 'base64') : new Uint8Array(Buffer.from(data.y, 'base64'));
  if ('r' in data) return Object.assign(new RegExp(data.r[0], data.r[1]), { lastIndex: data.r[2] });
  if ('g' in data) return own[data.g];
  if ('f' in data) {
    if (inside && state.strict) throw new NotPlain('an object with a function is not plain data');
    return decodeFunction(data);
  }
  if ('a' in data) {
    const items = new Array(data.a.length);
    data.a.forEach((item, at) => { if (!(item && item.h)) items[at] = inner(item); });
    return items;
  }
  const made = data.z ? Object.create(null) : {};
  for (const [key, item] of data.o)
    Object.defineProperty(made, key, { value: inner(item), writable: true, enumerable: true, configurable: true });
  return made;
}

function decodeFunction(data) {
  const number = Number(data.f);
  if (!foreign.has(number)) {
    const made = (...args) => ask({ call: number, args: args.map((item) => encode(item)) });
    Object.defineProperty(made, 'length', { value: Number(data.l), configurable: true });
    Object.defineProperty(made, 'name', { value: String(data.n), configurable: true });
    handles.set(made, number);
    foreign.set(number, made);
  }
  return foreign.get(number);
}

const KINDS = { Error, TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError };

function failure(error) {
  const made = { error: String(error && error.constructor && error.constructor.name), text: String(error && error.message) };
  if (!(error instanceof Error)) {
    try { return { thrown: encode(error) }; } catch { return made; }
  }
  if (error instanceof NotPlain) return { ...made, foul: true };
  const more = [];
  for (const [key, value] of [...Object.entries(error), ['name', error.name]]) {
    try { more.push([key, encode(value)]); } catch { /* properties that are not plain data are not sent */ }
  }
  return { ...made, more };
}

function raised(reply) {
  if ('thrown' in reply) return decode(reply.thrown);
  if (reply.foul) return new NotPlain(String(reply.text));
  const kind = Object.hasOwn(KINDS, reply.error) ? KINDS[reply.error] : Error;
  const made = new kind(String(reply.text));
  for (const [key, value] of reply.more || [])
    if (key !== 'stack' && key !== 'message' && key !== '__proto__' && !(key === 'name' && made.name === value)) made[key] = decode(value, true);
  return made;
}

// After a process has ended or broken the protocol, every later call fails, even if a test catches the first error.
const state = { gone: false, strict: false, sent: 0, most: Infinity };
function orGone(step) {
  try {
    return step();
  } catch (error) {
    if (error instanceof NotPlain) throw error;
    state.gone = true;
    throw new NotPlain('the program has ended, or sent something out of turn');
  }
}
const deliver = (message) => orGone(() => send(message));
const next = () => orGone(() => {
  const got = receive();
  if (got === null || typeof got !== 'object' || !['value', 'error', 'thrown', 'call'].some((key) => key in got)) throw new Error('not a message');
  return got;
});

// Sends a call. Answers the calls of the other process until the reply arrives.
function ask(message) {
  if (state.gone) throw new NotPlain('the program has ended, or sent something out of turn');
  if (state.sent >= state.most) throw new NotPlain('too many messages');
  deliver(message);
  for (;;) {
    const got = next();
    if (!('call' in got)) {
      if ('value' in got) return got.promised ? Promise.resolve(decode(got.value)) : decode(got.value);
      const error = raised(got);
      if (got.promised) return Promise.reject(error);
      throw error;
    }
    deliver(call(got));
  }
}

// Returns the reply to a call of one of this process's functions. A promise cannot be sent: while this process waits for a reply,
// the promise would not make progress.
function call(request) {
  try {
    if (typeof own[request.call] !== 'function') throw new NotPlain('no such function');
    return { value: encode(own[request.call](...request.args.map((item) => decode(item)))) };
  } catch (error) {
    return failure(error);
  }
}

module.exports = { NotPlain, TARGET: -1, state, ask, call, decode, encode, failure, receive, send };
