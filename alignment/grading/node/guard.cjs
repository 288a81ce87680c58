'use strict';
// Where candidate and tests share a process: what judges is taken out of reach, and watched. No proof, a fence.
const assert = require('node:assert');

const WATCHED = [Object, Object.prototype, Array, Array.prototype, Function.prototype, String, String.prototype, Number, Number.prototype, Boolean.prototype,
  Symbol, Symbol.prototype, BigInt.prototype, Map, Map.prototype, Set, Set.prototype, WeakMap.prototype, Promise, Promise.prototype, RegExp, RegExp.prototype, Date,
  Date.prototype, Error, Error.prototype, TypeError.prototype, JSON, Math, Reflect, Proxy, assert, assert.strict, assert.AssertionError.prototype, process, console,
  Object.getPrototypeOf(function* () {}).prototype, Object.getPrototypeOf([][Symbol.iterator]()), Object.getPrototypeOf(async function () {})];
const GLOBALS = ['Object', 'Array', 'Function', 'String', 'Number', 'Boolean', 'Symbol', 'Map', 'Set', 'Promise', 'RegExp', 'Date', 'Error', 'TypeError', 'JSON', 'Math',
  'Reflect', 'Proxy', 'expect', 'assert', 'setTimeout', 'clearTimeout', 'describe', 'it', 'test', 'vi', 'jest', 'process', 'console', '__align_hit'];
const { getOwnPropertyDescriptor, is } = Object, { ownKeys } = Reflect, { push } = Array.prototype, { apply } = Reflect;
let seen = [], globals = [], found = false;

function look(item) {
  const rows = [];
  for (const key of ownKeys(item)) {
    const { value, get, set } = getOwnPropertyDescriptor(item, key);
    if (typeof value === 'function' || get || set) apply(push, rows, [[key, value, get, set]]);
  }
  return rows;
}

// After loading, before the first test.
function close() {
  for (const name of ['binding', '_linkedBinding', 'dlopen', 'mainModule', 'getBuiltinModule', '_getActiveHandles', 'kill', 'abort', 'reallyExit']) delete process[name];
  const library = globalThis.expect, more = []; // libraries note things on their own objects: what is new there is no change
  if (library) {
    more.push(library);
    try { more.push(Object.getPrototypeOf(library(1))); } catch { /* no chain to watch */ }
  }
  for (const key of Object.getOwnPropertySymbols(globalThis)) {
    const kept = globalThis[key], inner = kept && (kept.matchers || kept);
    if (inner && typeof inner === 'object') more.push(inner);
  }
  const counted = (item) => (item === process || item === console ? null : ownKeys(item).length);
  seen = [...WATCHED.map((item) => [item, look(item), counted(item)]), ...more.map((item) => [item, look(item), null])];
  globals = GLOBALS.map((name) => [name, globalThis[name]]);
}

// Whether anything that judges is not what it was; once seen, seen for good.
function changed() {
  if (found) return true;
  for (let at = 0; at < globals.length; at++) if (!is(globalThis[globals[at][0]], globals[at][1])) found = true;
  for (let at = 0; at < seen.length && !found; at++) {
    const item = seen[at][0], rows = seen[at][1];
    if (seen[at][2] !== null && ownKeys(item).length !== seen[at][2]) found = true;
    for (let row = 0; row < rows.length && !found; row++) {
      const own = getOwnPropertyDescriptor(item, rows[row][0]);
      if (!own || own.value !== rows[row][1] || own.get !== rows[row][2] || own.set !== rows[row][3]) found = true;
    }
  }
  return found;
}

module.exports = { changed, close };
