'use strict';
// A small test runner: files register suites and tests, and the requested tests run one after the other in one process. The
// interfaces of node:test, mocha, jest, vitest, tape and others are in frameworks.cjs.
const { format } = require('node:util');

class Skip extends Error {}
class Unsupported extends Error {
  constructor(name) { super('unsupported: ' + name); }
}

const state = { file: '', top: null, where: null, current: null, running: false, pending: [], loading: new Set(), unsupported: '' };
const names = new Map();

function suiteOf(name, parent, skip) {
  return { name, parent, skip, items: [], context: parent ? Object.create(parent.context) : {},
           hooks: { before: [], after: [], beforeEach: [], afterEach: [] } };
}

function begin(file) {
  Object.assign(state, { file, current: null, running: false, pending: [] });
  state.top = state.where = suiteOf('', null, false);
  names.clear();
}

const isPlainObject = (item) => item !== null && typeof item === 'object';

// Reads (name, options, function, timeout) in any order that test frameworks allow.
function parts(given) {
  const at = given.findLastIndex((item) => typeof item === 'function');
  const first = given[0];
  const named = typeof first === 'string' || (typeof first === 'function' && at > 0);
  const fn = at >= 0 ? given[at] : null;
  const name = typeof first === 'string' ? first : (named ? first.name : (fn && fn.name)) || '<anonymous>';
  return { name, fn, options: given.find(isPlainObject) || {} };
}

function addSuite(given, flags = {}) {
  const { name, fn, options } = parts(given), parent = state.where;
  const suite = suiteOf(name, parent, Boolean(parent.skip || flags.skip || options.skip || options.todo));
  parent.items.push({ suite });
  if (!fn) return;
  state.where = suite;
  try {
    const made = fn.call(suite.context, suite.context);
    if (made && typeof made.then === 'function') state.pending.push(made.then(() => {}, (error) => { suite.broken = error; }));
  } catch (error) {
    suite.broken = error;
  } finally {
    state.where = parent;
  }
}

function addTest(given, style, flags = {}) {
  const { name, fn, options } = parts(given);
  const item = { name, fn, style, skip: Boolean(flags.skip || options.skip || options.todo || !fn), fails: flags.fails };
  if (state.running) return state.current ? subtest(state.current, item) : Promise.resolve();
  state.where.items.push(item);
  return Promise.resolve();
}

// style(fn, context) calls a hook. A hook that is registered while a test runs belongs to that test.
function addHook(kind, given, style) {
  const fn = given.find((item) => typeof item === 'function'), own = state.running && state.current;
  const hook = (context) => style(fn, context);
  if (!own) state.where.hooks[kind].push(hook);
  else if (kind === 'after') own.cleanup.push(hook);
  else if (kind in own.each) own.each[kind].push(hook);
}

// Each row of a table becomes a test: each([[1, 2]])(name, fn), or a tagged template with a heading.
function each(add, spread = true) {
  return (table, ...values) => {
    let rows = table;
    if (table && table.raw) {
      const heads = table.raw[0].split('|').map((head) => head.trim()).filter(Boolean);
      rows = [];
      for (let at = 0; at < values.length; at += heads.length) rows.push(Object.fromEntries(heads.map((head, n) => [head, values[at + n]])));
    }
    return (name, ...rest) => {
      const at = rest.findLastIndex((item) => typeof item === 'function'), fn = rest[at];
      [...rows].forEach((row, number) => {
        const args = Array.isArray(row) && spread ? row : [row];
        let title = String(name).replace(/%#/g, number).replace(/%p/g, '%o');
        if (isPlainObject(row)) title = title.replace(/\$(\w+)/g, (whole, key) => (key in row ? format(row[key]) : whole));
        const count = (title.match(/%[sdifjoO]/g) || []).length;
        add([count ? format(title, ...args.slice(0, count)) : title, ...rest.slice(0, at), () => fn(...args), ...rest.slice(at + 1)]);
      });
    };
  };
}

function identifier(path) {
  const plain = state.file + '::' + path.join(' > ').replace(/[\n\r]+/g, ' ');
  const count = (names.get(plain) || 0) + 1;
  names.set(plain, count);
  return count > 1 ? `${plain} (${count})` : plain;
}

// wanted: ids of the tests to run, or null for all. skip: ids of tests to leave out. report: called when a test begins and ends.
// limit: time limit of one test in milliseconds.
async function run(how) {
  while (state.pending.length) await state.pending.shift();
  state.running = true;
  number(state.top, []);
  await runSuite(state.top, [], how);
}

function number(suite, path) {
  for (const item of suite.items) {
    const here = [...path, (item.suite || item).name];
    if (item.suite) number(item.suite, here);
    else item.id = identifier(here), item.path = here;
  }
}

const concerns = (id, wanted) => !wanted || wanted.has(id) || [...wanted].some((name) => name.startsWith(id + ' > '));
const holds = (suite, wanted) => suite.items.some((item) => (item.suite ? holds(item.suite, wanted) : !item.skip && concerns(item.id, wanted)));

async function runSuite(suite, chain, how) {
  if (suite.skip || !holds(suite, how.wanted)) return;
  const owners = [...chain, suite];
  let broken = suite.broken;
  state.current = null;
  if (!broken) {
    for (const hook of suite.hooks.before) {
      try { await withLimit(hook(suite.context), how.limit); } catch (error) { broken = error; break; }
    }
  }
  for (const item of suite.items) {
    if (item.suite) { if (broken) item.suite.broken = broken; await runSuite(item.suite, owners, how); continue; }
    if (!concerns(item.id, how.wanted) || how.skip.has(item.id)) continue;
    await runTest(item, owners, how, broken);
  }
  for (const hook of suite.hooks.after) {
    try { await withLimit(hook(suite.context), how.limit); } catch { /* the results of the tests stand */ }
  }
}

async function runTest(item, owners, how, broken) {
  const { id, fn } = item, outer = state.current;
  how.report({ begin: id });
  if (item.skip) { how.report({ end: id, outcome: 'skipped', detail: '', hits: [], cpu: 0, seconds: 0 }); return; }
  const own = { id, path: item.path, how, hits: new Set(), failure: broken || null, cleanup: [], each: { beforeEach: [], afterEach: [] }, tail: Promise.resolve(),
                tags: Object.create(owners.at(-1).context), outer };
  const began = process.cpuUsage(), clock = process.hrtime.bigint();
  const aborted = new Promise((_, reject) => { own.abort = reject; });
  aborted.catch(() => {});
  state.current = own;
  state.unsupported = '';
  let skipped = false;
  if (!broken) {
    try {
      await withLimit((async () => {
        for (const suite of owners) for (const hook of suite.hooks.beforeEach) await hook(own.tags);
        if (outer) for (const hook of outer.each.beforeEach) await hook(own.tags);
        await item.style(fn, own);
        await own.tail;
      })(), how.limit, aborted);
    } catch (error) {
      if (error instanceof Skip) skipped = true;
      else own.failure ??= error ?? new Error('undefined was thrown');
    }
    for (const hook of [...own.cleanup.reverse(), ...(outer ? outer.each.afterEach : []), ...owners.toReversed().flatMap((suite) => suite.hooks.afterEach)]) {
      try { await withLimit(hook(own.tags), how.limit); } catch (error) { own.failure ??= error; }
    }
  }
  if (item.fails && !skipped) own.failure = own.failure ? null : new Error('the test is expected to fail, and passed');
  const used = process.cpuUsage(began);
  how.report({ end: id, outcome: skipped ? 'skipped' : own.failure ? 'failed' : 'passed', detail: words(own.failure), hits: [...own.hits],
             cpu: (used.user + used.system) / 1e6, seconds: Number(process.hrtime.bigint() - clock) / 1e9 });
  state.current = outer;
}

function words(error) {
  if (!error) return '';
  if (state.unsupported) return state.unsupported;
  try { return String((error && error.message) || error).slice(0, 300); } catch { return 'an error without a message'; }
}

// Runs a test inside a test. It runs after the earlier tests of the same parent, and the parent ends after it.
function subtest(parent, item) {
  item.path = [...parent.path, item.name];
  item.id = identifier(item.path);
  if (!concerns(item.id, parent.how.wanted) || item.skip) return Promise.resolve();
  const { how } = parent;
  parent.tail = parent.tail.then(() => runTest(item, [{ hooks: { beforeEach: [], afterEach: [] }, context: parent.tags }], how, null));
  return parent.tail;
}

// aborted: a promise that rejects if the test throws an error that nothing awaits.
async function withLimit(promise, limit, aborted = promise) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('the test takes too long')), limit); });
  try { return await Promise.race([promise, late, aborted]); } finally { clearTimeout(timer); }
}

function unsupported(name) {
  state.unsupported = 'unsupported: ' + name;
  return new Unsupported(name);
}

module.exports = { Skip, Unsupported, addHook, addSuite, addTest, begin, each, run, state, subtest, unsupported };
