"""The two programs that node runs inside the sandbox: one holds the tests, the other the candidate."""

WIRE = r"""
'use strict';
const fs = require('node:fs'), path = require('node:path'), url = require('node:url');
const asked = JSON.parse(fs.readFileSync('align.json', 'utf8'));
const root = path.resolve('repository');
if (asked.modules) fs.symlinkSync(asked.modules, path.join(root, 'node_modules'));
process.chdir(root);
const PEER = 4, LONGEST = 1 << 24;
// What may change under a candidate's hands is kept from here on.
const { writeSync, readSync } = fs, { parse, stringify } = JSON;
function readExactly(size) {
  const data = Buffer.allocUnsafe(size);
  for (let at = 0; at < size; ) {
    const got = readSync(PEER, data, at, size - at, null);
    if (got === 0) throw new Error('the other side is gone');
    at += got;
  }
  return data;
}
function receive() {
  const size = readExactly(4).readUInt32BE(0);
  if (size > LONGEST) throw new Error('a message that is too long');
  return parse(readExactly(size).toString('utf8'));
}
function send(message) {
  const data = Buffer.from(stringify(message), 'utf8');
  if (data.length > LONGEST) throw new Error('a message that is too long');
  const head = Buffer.alloc(4);
  head.writeUInt32BE(data.length, 0);
  const whole = Buffer.concat([head, data]);
  for (let at = 0; at < whole.length; ) at += writeSync(PEER, whole, at);
}
class NotPlain extends Error {}
function encode(value, depth = 0) {
  if (depth > 200) throw new NotPlain('nested too deep');
  switch (typeof value) {
    case 'string': case 'boolean': return value;
    case 'undefined': return { u: 1 };
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0) ? value : { n: Object.is(value, -0) ? '-0' : String(value) };
    case 'bigint': return { b: String(value) };
    case 'object': break;
    default: throw new NotPlain('a ' + typeof value + ' is no plain data');
  }
  if (value === null) return null;
  const kind = Object.getPrototypeOf(value);
  if (Array.isArray(value) && kind === Array.prototype) {
    const items = [];
    for (let at = 0; at < value.length; at++) items.push(at in value ? encode(value[at], depth + 1) : { h: 1 });
    return { a: items };
  }
  if (kind === Object.prototype || kind === null) {
    if (Object.getOwnPropertySymbols(value).length) throw new NotPlain('a symbol is no plain data');
    const items = [];
    for (const [key, own] of Object.entries(Object.getOwnPropertyDescriptors(value))) {
      if (!('value' in own)) throw new NotPlain('a getter is no plain data');
      items.push([key, encode(own.value, depth + 1)]);
    }
    return { o: items, z: kind === null ? 1 : 0 };
  }
  throw new NotPlain('an object of a class is no plain data');
}
function decode(data) {
  if (data === null || typeof data !== 'object') return data;
  if (data.u) return undefined;
  if ('n' in data) return Number(data.n);
  if ('b' in data) return BigInt(data.b);
  if ('a' in data) {
    const items = new Array(data.a.length);
    data.a.forEach((item, at) => { if (!(item && item.h)) items[at] = decode(item); });
    return items;
  }
  const made = data.z ? Object.create(null) : {};
  for (const [key, item] of data.o)
    Object.defineProperty(made, key, { value: decode(item), writable: true, enumerable: true, configurable: true });
  return made;
}
"""

TESTER = (
    WIRE
    + r"""
const runner = require('node:test');
const say = (message) => fs.writeSync(1, '\n' + asked.nonce + JSON.stringify(message) + '\n');
let gone = false, current = null;
const KINDS = { Error, TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError };
globalThis.__align_call = function (given) {
  const args = given.map((item) => encode(item));
  if (gone) throw new NotPlain('the program is gone');
  let reply;
  try {
    send({ args });
    reply = receive();
  } catch {
    gone = true;
    throw new NotPlain('the program is gone');
  }
  if ('error' in reply) {
    const kind = Object.hasOwn(KINDS, reply.error) ? KINDS[reply.error] : Error;
    const made = new kind(String(reply.text));
    if (typeof reply.code === 'string') made.code = reply.code;
    throw made;
  }
  return decode(reply.value);
};
globalThis.__align_hit = (number) => { if (current) current.hits.add(number); };
const stack = [];
let file = '';
function wrapTest(original) {
  return function (...given) {
    const fn = given.findLastIndex((item) => typeof item === 'function');
    const name = typeof given[0] === 'string' ? given[0] : fn >= 0 ? given[fn].name || '<anonymous>' : '<anonymous>';
    const id = file + '::' + [...stack, name].join(' > ');
    if (fn >= 0) given[fn] = wrapBody(given[fn], id);
    return original.apply(this, given);
  };
}
function wrapBody(body, id) {
  const run = async function (context, ...rest) {
    const before = current, began = process.cpuUsage(), clock = process.hrtime.bigint();
    const own = (current = { hits: new Set(), broken: '' });
    let detail = '', passed = true;
    if (context && typeof context.test === 'function') {
      const inner = context.test.bind(context);
      context.test = (...given) => {
        const at = given.findLastIndex((item) => typeof item === 'function');
        if (at >= 0) {
          const part = given[at];
          given[at] = async (...more) => { try { return await part(...more); } catch (error) { own.broken = String(error && error.message); throw error; } };
        }
        return inner(...given);
      };
    }
    try {
      if (body.length > 1) await new Promise((resolve, reject) => body.call(this, context, (error) => (error ? reject(error) : resolve())));
      else await body.call(this, context, ...rest);
    } catch (error) {
      passed = false;
      detail = String(error && error.message);
      throw error;
    } finally {
      if (own.broken) { passed = false; detail = own.broken; }
      const used = process.cpuUsage(began);
      say({ test: id, passed, detail: detail.slice(0, 300), hits: [...own.hits], cpu: (used.user + used.system) / 1e6,
            seconds: Number(process.hrtime.bigint() - clock) / 1e9 });
      current = before;
    }
  };
  return function (context) { return run.call(this, context); };
}
function wrapSuite(original) {
  return function (...given) {
    const fn = given.findLastIndex((item) => typeof item === 'function');
    if (fn >= 0) {
      const body = given[fn], name = typeof given[0] === 'string' ? given[0] : body.name || '<anonymous>', path = [...stack, name];
      given[fn] = function (...more) {
        const before = stack.splice(0, stack.length, ...path);
        try { return body.apply(this, more); } finally { stack.splice(0, stack.length, ...before); }
      };
    }
    return original.apply(this, given);
  };
}
const test = Object.assign(wrapTest(runner.test), runner.test), suite = Object.assign(wrapSuite(runner.describe), runner.describe);
for (const name of ['skip', 'todo', 'only']) {
  if (runner.test[name]) test[name] = name === 'only' ? wrapTest(runner.test[name]) : runner.test[name];
  if (runner.describe[name]) suite[name] = name === 'only' ? wrapSuite(runner.describe[name]) : runner.describe[name];
}
const it = Object.assign(wrapTest(runner.it), runner.it);
globalThis.__align_test = Object.assign((...given) => test(...given), {
  ...runner, test, it, describe: suite, suite, before: runner.before, after: runner.after, beforeEach: runner.beforeEach,
  afterEach: runner.afterEach, mock: runner.mock, skip: runner.test.skip, todo: runner.test.todo,
});
process.on('exit', () => say({ done: true, gone }));
process.on('uncaughtException', (error) => say({ stray: String(error && error.message) }));
process.on('unhandledRejection', (error) => say({ stray: String(error && error.message) }));
(async () => {
  for (const name of asked.files) {
    file = name;
    try {
      await import(url.pathToFileURL(path.resolve(name)).href);
    } catch (error) {
      say({ problem: name, detail: String(error && error.message).slice(0, 300) });
    }
  }
})();
"""
)

CANDIDATE = (
    WIRE
    + r"""
(async () => {
  await import(url.pathToFileURL(path.resolve(asked.file)).href);
  const target = globalThis.__align_target;
  for (;;) {
    let request;
    try { request = receive(); } catch { process.exit(0); }
    let reply;
    try {
      reply = { value: encode(await target(...request.args.map(decode))) };
    } catch (error) {
      reply = { error: String(error && error.constructor && error.constructor.name), text: String(error && error.message), code: error && error.code };
    }
    send(reply);
  }
})().catch((error) => { process.stderr.write(String(error && error.stack) + '\n'); process.exit(1); });
"""
)

NAMES = ("test", "it", "describe", "suite", "before", "after", "beforeEach", "afterEach", "mock", "skip", "todo")
# What test files import instead of node:test, so that each test says how it ended.
SHIM = "module.exports = globalThis.__align_test;\n" + "".join(
    f"module.exports.{name} = globalThis.__align_test.{name};\n" for name in NAMES
)
