'use strict';
// The interfaces of test frameworks, implemented with runner.cjs. Test files get these objects when they import node:test, mocha,
// jest, vitest, uvu, tape or tap.
const Module = require('node:module'), assert = require('node:assert'), path = require('node:path');
const runner = require('./runner.cjs');
const { state } = runner;

const withCallback = (begin) => new Promise((resolve, reject) => begin((error) => (error ? reject(error) : resolve())));

// Stands for a part of a framework that is not supported. A test that uses this part fails, with the part's name as the reason.
const refuse = (name) => new Proxy({}, { get(_, key) { throw runner.unsupported(`${name}.${String(key)}`); } });

function registrar(add, style) {
  const made = (...given) => add(given, style);
  const skipped = (...given) => add(given, style, { skip: true });
  const fails = (...given) => add(given, style, { fails: true });
  const one = (given, flags) => add(given, style, flags);
  Object.assign(made, {
    skip: Object.assign(skipped, { each: runner.each((given) => one(given, { skip: true })) }), todo: skipped, only: made, concurrent: made,
    sequential: made, failing: fails, fails, each: runner.each((given) => one(given)), for: runner.each((given) => one(given), false),
    skipIf: (when) => (when ? skipped : made), runIf: (when) => (when ? made : skipped), expectFailure: fails,
  });
  return made;
}

const suites = () => registrar((given, _, flags) => runner.addSuite(given, flags), null);
const hooksOf = (style, spelled) => Object.fromEntries(Object.entries(spelled).map(([name, kind]) => [name, (...given) => runner.addHook(kind, given, style)]));

// mocha and jest: a test function that has a parameter is called with a callback.
function calledBack(fn, context) {
  return fn.length ? withCallback((done) => fn.call(context, done)) : fn.call(context);
}

function mochaContext(own) {
  const self = () => own.tags;
  return Object.assign(own.tags, { timeout: self, slow: self, retries: self, currentTest: { title: own.path.at(-1) }, test: { title: own.path.at(-1) },
                                   skip() { throw new runner.Skip(); } });
}

const BDD = { before: 'before', after: 'after', beforeAll: 'before', afterAll: 'after', beforeEach: 'beforeEach', afterEach: 'afterEach', setup: 'beforeEach',
              teardown: 'afterEach', suiteSetup: 'before', suiteTeardown: 'after' };

function globals(library) {
  const style = library === 'vitest' ? vitestStyle : (fn, own) => calledBack(fn, mochaContext(own));
  const hook = library === 'vitest' ? (fn, context) => fn.call(context, context) : calledBack;
  const test = registrar(runner.addTest, style), describe = suites();
  Object.assign(test, { describe, test, extend: () => { throw runner.unsupported('test.extend'); }, step: undefined });
  return { test, it: test, specify: test, describe, context: describe, suite: describe, xit: test.skip, xtest: test.skip, fit: test, xdescribe: describe.skip,
           fdescribe: describe, ...hooksOf(hook, BDD), onTestFinished: (fn) => runner.addHook('after', [fn], hook) };
}

function vitestStyle(fn, own) {
  const context = Object.assign(own.tags, { expect: globalThis.expect, task: { name: own.path.at(-1) }, skip() { throw new runner.Skip(); },
                                            onTestFinished: (hook) => own.cleanup.push(hook), onTestFailed() {} });
  return fn.call(context, context);
}

// node:test
function nodeTest() {
  const call = (fn, context) => (fn.length > 1 ? withCallback((done) => fn.call(context, context, done)) : fn.call(context, context));
  const real = require('node:test');
  const style = async (fn, own) => {
    let planned = null, done = 0;
    const counted = new Proxy(assert, { get(from, key) {
      const found = from[key];
      return typeof found === 'function' ? (...given) => { done++; return found.apply(from, given); } : found;
    } });
    const context = Object.assign(own.tags, {
      name: own.path.at(-1), fullName: own.path.join(' > '), assert: counted, mock: real.mock, signal: new AbortController().signal, diagnostic() {}, runOnly() {},
      plan(count) { planned = count; }, skip() { throw new runner.Skip(); }, todo() {},
      test: registrar((given, _, flags = {}) => { done++; return runner.addTest(given, style, flags); }, style),
      ...hooksOf(call, { before: 'before', after: 'after', beforeEach: 'beforeEach', afterEach: 'afterEach' }),
    });
    await call(fn, context);
    real.mock.restoreAll();
    await own.tail;
    if (planned !== null && planned !== done) throw new Error(`${planned} assertions were planned, ${done} were made`);
  };
  const test = registrar(runner.addTest, style), describe = suites();
  return Object.assign(test, { test, it: test, describe, suite: describe, ...hooksOf(call, { before: 'before', after: 'after', beforeEach: 'beforeEach', afterEach: 'afterEach' }),
                               mock: real.mock, run() { throw runner.unsupported('run'); }, snapshot: refuse('snapshot'), assert: refuse('assert') });
}

// tape and tap: assertions are methods of the context, and a failed assertion does not end the test. A test ends with end(), when
// the planned number of assertions is reached, or when its promise is settled.
const same = ['equal', 'equals', 'is', 'strictEqual', 'strictEquals', 'isEqual'], deep = ['deepEqual', 'deepEquals', 'same', 'strictSame', 'isEquivalent'];
const CHECKS = {
  ...Object.fromEntries(same.map((name) => [name, assert.strictEqual])), ...Object.fromEntries(deep.map((name) => [name, assert.deepStrictEqual])),
  ...Object.fromEntries(['notEqual', 'not', 'notStrictEqual', 'isNot', 'isNotEqual'].map((name) => [name, assert.notStrictEqual])),
  ...Object.fromEntries(['notDeepEqual', 'notSame', 'notStrictSame'].map((name) => [name, assert.notDeepStrictEqual])),
  ...Object.fromEntries(['ok', 'true', 'assert'].map((name) => [name, assert.ok])),
  ...Object.fromEntries(['notOk', 'false', 'notok'].map((name) => [name, (value, text) => assert.ok(!value, text)])),
  deepLooseEqual: assert.deepEqual, throws: (fn, ...more) => assert.throws(fn, ...(typeof more[0] === 'string' ? [] : more)),
  doesNotThrow: (fn) => assert.doesNotThrow(fn), match: assert.match, doesNotMatch: assert.doesNotMatch, fail: (text) => assert.fail(text), pass() {},
  ...Object.fromEntries(['error', 'ifError', 'ifErr', 'iferror'].map((name) => [name, assert.ifError])), type: (value, kind) => assert.strictEqual(typeof value, kind),
};

function tape() {
  const style = (fn, own) => new Promise((resolve, reject) => {
    let planned = null, done = 0;
    const settle = () => { if (planned !== null && done >= planned) resolve(); };
    const context = Object.assign(own.tags, { name: own.path.at(-1), comment() {}, timeoutAfter() {}, end(error) { if (error) own.failure ??= error; resolve(); },
      plan(count) { planned = count; settle(); }, teardown(hook) { own.cleanup.push(hook); }, skip() { done++; settle(); },
      test(...given) { done++; const made = runner.addTest(given, style); made.then(settle); return made; } });
    for (const [name, check] of Object.entries(CHECKS)) {
      context[name] = (...given) => {
        done++;
        try { check(...given); } catch (error) { own.failure ??= error; }
        settle();
      };
    }
    for (const [name, check] of [['rejects', assert.rejects], ['resolves', assert.doesNotReject]])
      context[name] = (...given) => check(...given).catch((error) => { own.failure ??= error; }).then(() => { done++; settle(); });
    Promise.resolve(fn.call(context, context)).then((made) => { if (fn.constructor.name === 'AsyncFunction' || made) resolve(); }).catch(reject);
  });
  const test = registrar(runner.addTest, style);
  const hook = (fn, context) => fn(context);
  return Object.assign(test, { test, onFinish() {}, onFailure() {}, teardown(fn) { runner.addHook('after', [fn], hook); }, ...hooksOf(hook, { before: 'before', beforeEach: 'beforeEach', afterEach: 'afterEach' }) });
}

function uvu() {
  const style = (fn, own) => fn(Object.assign(own.tags, {}));
  const hook = (fn, context) => fn(context);
  const suite = (name = '') => {
    const items = [];
    const inside = (add) => (...given) => { items.push(() => add(...given)); };
    const made = Object.assign(inside(registrar(runner.addTest, style)), { skip() {}, run() { if (name) runner.addSuite([name, () => items.forEach((item) => item())]); else items.forEach((item) => item()); } });
    const before = inside((fn) => runner.addHook('before', [fn], hook)), after = inside((fn) => runner.addHook('after', [fn], hook));
    before.each = inside((fn) => runner.addHook('beforeEach', [fn], hook));
    after.each = inside((fn) => runner.addHook('afterEach', [fn], hook));
    return Object.assign(made, { only: made, before, after });
  };
  return { test: suite(), suite };
}

// The assertions and spies of jest or vitest, from the version that the repository has installed.
async function assertions(library, root) {
  const from = Module.createRequire(path.join(root, 'package.json'));
  const url = require('node:url');
  const reach = (name, ...through) => {
    for (const steps of [[], ...through]) {
      try { return steps.reduce((at, step) => Module.createRequire(at.resolve(step)), from).resolve(name); } catch { /* try the next way */ }
    }
    return null;
  };
  if (library === 'vitest') {
    const found = reach('@vitest/expect', ['vitest']), spies = reach('@vitest/spy', ['vitest'], ['vitest', '@vitest/expect']);
    if (!found || !spies) return {};
    const parts = await import(url.pathToFileURL(found).href), spy = await import(url.pathToFileURL(spies).href);
    const chai = parts.chai || await import(url.pathToFileURL(reach('chai', ['@vitest/expect'], ['vitest', '@vitest/expect'])).href);
    for (const plugin of [parts.JestExtend, parts.JestChaiExpect, parts.JestAsymmetricMatchers]) chai.use(plugin);
    const expect = Object.assign((value, text) => { const { assertionCalls } = parts.getState(expect); parts.setState({ assertionCalls: assertionCalls + 1 }, expect); return chai.expect(value, text); }, chai.expect);
    Object.assign(expect, { getState: () => parts.getState(expect), setState: (more) => parts.setState(more, expect), extend: (more) => chai.expect.extend(expect, more),
      unreachable: (text) => assert.fail(text), soft: (...given) => expect(...given), assertions() {}, hasAssertions() {}, addSnapshotSerializer() {} });
    if (parts.customMatchers) expect.extend(parts.customMatchers);
    globalThis[parts.GLOBAL_EXPECT] = expect;
    parts.setState({ assertionCalls: 0, isExpectingAssertions: false, expectedAssertionsNumber: null, environment: 'node' }, expect);
    return { expect, assert: chai.assert, chai, expectTypeOf: anything(), assertType() {}, vi: mocks('vi', spy) };
  }
  const found = reach('expect', ['@jest/expect'], ['jest', 'jest-cli', '@jest/core', 'jest-runner', 'jest-runtime', 'jest-circus'], ['jest', '@jest/core', 'jest-snapshot'], ['jest', '@jest/core', '@jest/reporters', 'jest-snapshot'], ['@jest/globals', '@jest/expect'], ['@jest/globals']);
  const mock = reach('jest-mock', ['@jest/globals'], ['@jest/environment']);
  if (!found) return {};
  const { expect } = require(found);
  const { ModuleMocker } = mock ? require(mock) : {};
  const mocker = ModuleMocker && new ModuleMocker(globalThis);
  return { expect, jest: mocks('jest', mocker && { fn: mocker.fn.bind(mocker), spyOn: mocker.spyOn.bind(mocker), isMockFunction: mocker.isMockFunction.bind(mocker),
    clearAllMocks: () => mocker.clearAllMocks(), resetAllMocks: () => mocker.resetAllMocks(), restoreAllMocks: () => mocker.restoreAllMocks() }) };
}

const anything = () => new Proxy(function () {}, { get: () => anything(), apply: () => anything() });

function mocks(name, spies) {
  if (!spies) return refuse(name);
  const stubbed = [];
  const set = (on, key, value) => { stubbed.push([on, key, Object.getOwnPropertyDescriptor(on, key)]); on[key] = value; };
  const restore = () => { for (const [on, key, was] of stubbed.splice(0).reverse()) { if (was) Object.defineProperty(on, key, was); else delete on[key]; } };
  const all = (method) => () => spies.mocks ? [...spies.mocks].forEach((item) => item[method]()) : undefined;
  const known = { fn: spies.fn, spyOn: spies.spyOn, isMockFunction: spies.isMockFunction, mocked: (item) => item, setTimeout() {}, clearAllMocks: spies.clearAllMocks || all('mockClear'),
    resetAllMocks: spies.resetAllMocks || all('mockReset'), restoreAllMocks: spies.restoreAllMocks || all('mockRestore'), stubGlobal: (key, value) => set(globalThis, key, value),
    stubEnv: (key, value) => set(process.env, key, value), unstubAllGlobals: restore, unstubAllEnvs: restore, hoisted: (fn) => fn(), useRealTimers() {} };
  return new Proxy(known, { get(from, key) {
    if (key in from && from[key]) return from[key];
    throw runner.unsupported(`${name}.${String(key)}`);
  } });
}

// Sets the globals that test files see. Returns the object that an import of each framework module gives.
// library: "jest", "vitest" or "".
async function make(library, root) {
  const found = library ? await assertions(library, root) : {};
  const spelled = globals(library), node = nodeTest(), taped = tape();
  Object.assign(globalThis, spelled, found, { run: undefined });
  const both = { ...spelled, ...found };
  return { 'node:test': node, test: node, vitest: both, '@jest/globals': both, mocha: spelled, tape: taped, tap: Object.assign(taped, { default: taped }), uvu: uvu() };
}

module.exports = { make, state };
