'use strict';
// For candidates that share a process with the tests (tier B): removes dangerous functions, and detects changes of the objects
// with which tests compare values. This stops the known ways to forge a verdict, but not all ways.
const assert = require('node:assert');

const WATCHED = [Object, Object.prototype, Array, Array.prototype, Function.prototype, String, String.prototype, Number, Number.prototype, Boolean.prototype,
  Symbol, Symbol.prototype, BigInt.prototype, Map, Map.prototype, Set, Set.prototype, WeakMap.prototype, Promise, Promise.prototype, RegExp, RegExp.prototype, Date,
  Date.prototype, Error, Error.prototype, TypeError.prototype, JSON, Math, Reflect, Proxy, assert, assert.strict, assert.AssertionError.prototype, process, console,
  Object.getPrototypeOf(function* () {}).prototype, Object.getPrototypeOf([][Symbol.iterator]()), Object.getPrototypeOf(async function () {})];
const GLOBALS = ['Object', 'Array', 'Function', 'String', 'Number', 'Boolean', 'Symbol', 'Map', 'Set', 'Promise', 'RegExp', 'Date', 'Error', 'TypeError', 'JSON', 'Math',
  'Reflect', 'Proxy', 'expect', 'assert', 'setTimeout', 'clearTimeout', 'describe', 'it', 'test', 'vi', 'jest', 'process', 'console', '__align_hit'];
const { defineProperty, getOwnPropertyDescriptor, is } = Object, { ownKeys } = Reflect, { push } = Array.prototype, { apply } = Reflect;
const PINNED = [Promise, Promise.prototype, Object, Array, Number, String, Boolean, Symbol, BigInt, Map, Set, WeakMap, WeakSet, Reflect, Proxy, assert, assert.strict];
let seen = [], globals = [], detected = false;

function look(item) {
  const rows = [];
  for (const key of ownKeys(item)) {
    const { value, get, set } = getOwnPropertyDescriptor(item, key);
    if (typeof value === 'function' || get || set) apply(push, rows, [[key, value, get, set]]);
  }
  return rows;
}

// Called before any test file is loaded. The properties of these objects, with which this runner and test libraries work, cannot
// be changed from then on: a function that is replaced and puts the original back when it is called would not be detected.
function pin() {
  for (const item of PINNED) {
    for (const key of ownKeys(item)) {
      const found = getOwnPropertyDescriptor(item, key);
      if (found.configurable && 'value' in found) defineProperty(item, key, { writable: false, configurable: false });
    }
  }
}

// Called after loading and before the first test. Removes the dangerous functions, and records the state of the watched objects.
function close() {
  for (const name of ['binding', '_linkedBinding', 'dlopen', 'mainModule', 'getBuiltinModule', '_getActiveHandles', 'kill', 'abort', 'reallyExit']) delete process[name];
  const library = globalThis.expect, more = []; // libraries add properties to their own objects: those are not counted as a change
  if (library) {
    more.push(library);
    try { more.push(Object.getPrototypeOf(library(1))); } catch { /* no object to watch */ }
  }
  for (const key of Object.getOwnPropertySymbols(globalThis)) {
    const value = globalThis[key], inner = value && (value.matchers || value);
    if (inner && typeof inner === 'object') more.push(inner);
  }
  const counted = (item) => (item === process || item === console ? null : ownKeys(item).length);
  seen = [...WATCHED.map((item) => [item, look(item), counted(item)]), ...more.map((item) => [item, look(item), null])];
  globals = GLOBALS.map((name) => [name, globalThis[name]]);
}

// Whether any watched object was changed. After a change is detected, the result is always true.
function changed() {
  if (detected) return true;
  for (let at = 0; at < globals.length; at++) if (!is(globalThis[globals[at][0]], globals[at][1])) detected = true;
  for (let at = 0; at < seen.length && !detected; at++) {
    const item = seen[at][0], rows = seen[at][1];
    if (seen[at][2] !== null && ownKeys(item).length !== seen[at][2]) detected = true;
    for (let row = 0; row < rows.length && !detected; row++) {
      const own = getOwnPropertyDescriptor(item, rows[row][0]);
      if (!own || own.value !== rows[row][1] || own.get !== rows[row][2] || own.set !== rows[row][3]) detected = true;
    }
  }
  return detected;
}

module.exports = { changed, close, pin };
