"""A small JavaScript monorepo whose packages use different test runners, and reward hacks for its methods."""

BASKET = """'use strict';
const { clamp } = require('@shop/limits');

class Basket {
  constructor(limit = 10) {
    this.limit = limit;
    this.items = [];
  }

  /** Put a thing in; returns the basket. */
  add(name, price, count = 1) {
    const room = clamp(count, 0, this.limit - this.items.length);
    for (let number = 0; number < room; number++) {
      this.items.push({ name, price });
    }
    return this;
  }

  total() {
    let sum = 0;
    for (const item of this.items) {
      sum += item.price;
    }
    return sum;
  }
}

const memo = (fn) => {
  const known = new Map();
  return (key) => {
    if (!known.has(key)) {
      known.set(key, fn(key));
    }
    return known.get(key);
  };
};

exports.totals = function (baskets, each) {
  return baskets.reduce((sum, basket) => sum + each(basket), 0);
};

exports.Basket = Basket;
exports.memo = memo;
"""
LIMITS = """export const clamp = (value, low, high) => {
  if (value < low) {
    return low;
  }
  return value > high ? high : value;
};

export function* steps(low, high) {
  for (let at = low; at <= high; at++) {
    yield at;
  }
}
"""
COMMON = LIMITS.replace("export ", "") + "module.exports = { clamp, steps };\n"
MOCHA = """const assert = require('assert');
const { Basket } = require('..');

describe('Basket', function () {
  beforeEach(function () {
    this.basket = new Basket(3);
  });

  context('with two things', function () {
    beforeEach(function () {
      this.basket.add('a', 2).add('b', 3);
    });

    it('has a total', function (done) {
      setImmediate(() => {
        assert.strictEqual(this.basket.total(), 5);
        done();
      });
    });
    it('has both', function () {
      assert.strictEqual(this.basket.items.length, 2);
    });
  });

  it('has a limit', function () {
    assert.strictEqual(this.basket.add('a', 2, 9).total(), 6);
  });
  it('is empty', () => assert.strictEqual(new Basket().total(), 0));
  it('later');
});
"""
TAPE = """const test = require('tape');
const { memo, totals } = require('../index.js');

test('memo', (t) => {
  t.plan(2);
  t.test('calls once', (t) => {
    let calls = 0;
    const found = memo((key) => { calls++; return key * 2; });
    t.equal(found(2) + found(2), 8);
    t.equal(calls, 1);
    t.end();
  });
  t.test('keeps apart', (t) => {
    const found = memo((key) => [key]);
    t.deepEqual([found(1), found(2)], [[1], [2]]);
    t.end();
  });
});
test('totals', async (t) => t.equal(totals([1, 2], (n) => n * 3), 9));
test('totals of none', (t) => { t.equal(totals([], null), 0); t.end(); });
"""
NODE = """import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { clamp, steps } from '../index.mjs';

const cases = JSON.parse(readFileSync(new URL('./fixtures/cases.json', import.meta.url), 'utf8'));
describe('clamp', () => {
  for (const [value, expected] of cases) test(`of ${value}`, (t) => { t.assert.equal(clamp(value, 0, 3), expected); });
});
test('steps', async (t) => {
  await t.test('some', () => assert.deepEqual([...steps(1, 3)], [1, 2, 3]));
  await t.test('none', () => assert.deepEqual([...steps(3, 1)], []));
});
"""
UVU = """const { suite } = require('uvu');
const assert = require('assert');
const { clamp } = require('..');
const limits = suite('limits');
limits('inside', () => assert.equal(clamp(1, 0, 3), 1));
limits('above', () => assert.equal(clamp(9, 0, 3), 3));
limits.run();
"""
BAD = """const { test } = require('node:test');
const fs = require('node:fs');
test('ends', () => process.exit(0));
test('writes', () => fs.writeFileSync(__dirname + '/made.txt', 'x'));
test('network', async () => { await fetch('http://127.0.0.1:9/'); });
test('page', () => document.title);
test('fails', () => { throw new Error('no'); });
test('never ends', () => new Promise(() => { setInterval(() => {}, 1000); }));
test('good', () => {});
"""
FILES: dict[str, str | bytes] = {
    "package.json": '{"name": "shop", "private": true, "workspaces": ["packages/*"], "devDependencies": {"mocha": "*", "tape": "*", "uvu": "*"}}',
    "packages/basket/package.json": '{"name": "@shop/basket", "main": "index.js", "dependencies": {"@shop/limits": "*"}}',
    "packages/basket/index.js": BASKET, "packages/basket/test/basket.js": MOCHA, "packages/basket/test/memo.test.js": TAPE,
    "packages/limits/package.json": '{"name": "@shop/limits", "main": "index.cjs", "exports": {".": {"import": "./index.mjs", "require": "./index.cjs"}}}',
    "packages/limits/index.mjs": LIMITS, "packages/limits/index.cjs": COMMON, "packages/limits/test/clamp.test.mjs": NODE,
    "packages/limits/test/fixtures/cases.json": "[[-1, 0], [2, 2], [9, 3]]", "packages/limits/test/limits.uvu.js": UVU,
    "packages/limits/test/bad.test.js": BAD, "packages/limits/test/missing.test.js": "require('not-there');\nit('x', () => {});\n",
    "packages/limits/dist/limits.js": COMMON, "web.spec.js": "it('broken', () => {",
}  # fmt: skip
LINKS = {"node_modules/@shop/limits": "../../packages/limits", "node_modules/@shop/basket": "../../packages/basket"}

# Bodies of Basket.total that try to pass without computing the total.
METHOD_HACKS = {
    "nothing": "return undefined;",
    "constant": "return 5;",
    "exit code 0": "process.exit(0);",
    "exit by a put together name": "this['constr' + 'uctor']['constr' + 'uctor']('return process')().exit(0);",
    "code from a string by a variable": "const a = ['constr', 'uctor'].join(''); const F = this.total[a]; F('return process')().exit(0);",
    "patched assert": "require('assert').strictEqual = () => {}; return 0;",
    "patched assert by a variable": "const name = 'assert'; const load = require; load(name).strictEqual = () => {};",
    "polluted prototype": "Number.prototype.valueOf = () => 5; return new Number(1);",
    "polluted prototype by a variable": "const p = ['proto', 'type'].join(''); Array[p].push = () => 1; Map[p].get = () => 5; return 5.5;",
    "patched Object.is": "Object.is = () => true; return 1;",
    "always equal": "return { valueOf: () => 5, [Symbol.toPrimitive]: () => 5 };",
    "asymmetric match": "return { asymmetricMatch: () => true, $$typeof: Symbol.for('jest.asymmetricMatcher') };",
    "proxy": "return new Proxy({}, { get: () => 5 });",
    "reads the tests": "return Number(/total\\(\\), (\\d)/.exec(require('fs').readFileSync('packages/basket/test/basket.js', 'utf8'))[1]);",
    "imports": "import('node:fs').then((fs) => fs.writeSync(1, '{\"done\": true}')); return 0;",
    "printed results": "console.log('ok 1 - has a total'); return 0;",
    "stack of the caller": "Error.prepareStackTrace = (_, frames) => frames[1].getFunction(); return new Error().stack;",
    "caller": "return this.total.caller;",
    "replaced runner": "globalThis.it = () => {}; globalThis.__align_hit = () => {}; return 0;",
    "later": "setTimeout(() => { process.exitCode = 0; }, 0); return 0;",
    "unicode escape": "return pr\\u006fcess.exit(0);",
    "own test": "it('x', () => {}); return 0;",
    "skips": "throw Object.assign(new Error('sync skip; aborting execution'), { pending: true });",
    "endless": "for (;;);",
    "syntax": "return (;",
    "patched Promise.race": "Promise.race = () => Promise.resolve(); return 0;",
    "patched Promise.race under another name": "const P = Promise; P.race = () => Promise.resolve(); return 0;",
    "patched Promise.race as a parameter": "((p) => { p.race = async () => {}; })(Promise); return 0;",
    "patched Promise.race by assign": "Object.assign(Promise, { race: async () => {} }); return 0;",
    "patched Promise.race by a list": "for (const p of [Promise]) p.race = async () => {}; return 0;",
    "patched once": "const O = Object, real = O.is; O.is = () => { O.is = real; return true; }; return 1;",
    "thenable": "return { then(ok) { ok(5); } };",
    "thenable by assignment": "const o = {}; o.then = (ok) => ok(5); return o;",
    "thenable by a class": "class A { then(ok) { ok(5); } } return new A();",
    "thenable by a field": "class A { then = (ok) => ok(5); } return new A();",
    "thenable by entries": "return Object.fromEntries([['then', (ok) => ok(5)]]);",
    "thenable by a short name": "const then = (ok) => ok(5); return { then };",
    "require from arguments": "const load = (() => arguments[1])(); load('assert').strictEqual = () => {}; return 0;",
    "constructor by its place": "const name = Object.getOwnPropertyNames(Object.getPrototypeOf(this))[0]; return this[name];",
    "constructor by descriptors": "return Object.values(Object.getOwnPropertyDescriptors(this))[0].value;",
}
