'use strict';
// The process that runs the tests. It has three modes. `trace` reports every test and the functions that the test calls. In the
// mode `proxied`, a stub sends calls of the function under test to another process. In the mode `whole`, the function is in this
// process, and the test files on the disk are emptied before any test runs.
const fs = require('node:fs'), path = require('node:path');
const request = JSON.parse(fs.readFileSync('align.json', 'utf8'));
fs.unlinkSync('align.json');
const wire = require('./wire.cjs'), load = require('./load.cjs'), runner = require('./runner.cjs'), frameworks = require('./frameworks.cjs');
const { state } = runner, { writeSync } = fs, { stringify } = JSON, { exit } = process;
const nonce = request.nonce;
const send = (message) => {
  const line = Buffer.from('\n' + nonce + stringify(message) + '\n');
  for (let at = 0; at < line.length; ) at += writeSync(1, line, at);
};

const guarded = request.mode === 'whole' ? require('./guard.cjs') : null;

// An error that nothing awaits, such as a failed assertion in a callback, makes the current test fail.
function failCurrent(error) {
  if (!state.current) return;
  state.current.failure ??= error ?? new Error('undefined was thrown');
  state.current.abort(error);
}

async function main() {
  process.on('uncaughtException', failCurrent);
  process.on('unhandledRejection', failCurrent);
  const known = await frameworks.make(request.library, request.root);
  globalThis.__align_frameworks = known;
  const early = new Map(); // CommonJS can be loaded from memory; node reads ES modules from the disk itself
  for (const [name, place] of request.mode === 'whole' ? Object.entries(request.secret) : []) {
    if (request.esm.includes(name)) continue;
    early.set(path.resolve(request.root, name), fs.readFileSync(place, 'utf8'));
    fs.truncateSync(place);
  }
  load.install(request, known, early);
  process.chdir(request.root);
  if (guarded) guarded.pin();
  globalThis.__align_hit = (number) => { if (state.current) state.current.hits.add(number); else state.loading.add(number); };
  wire.state.strict = true;
  if (request.mode === 'proxied') globalThis.__align_call = (args) => wire.ask({ call: wire.TARGET, args: args.map((item) => wire.encode(item)) });
  const problems = [], results = [], ready = [];
  const tracing = request.mode === 'trace';
  runner.begin('');
  for (const name of request.setup) {
    try { await load.file(load.find(name)); } catch (error) { if (tracing) send({ problem: name, detail: words(error) }); }
  }
  const shared = state.top.hooks;
  for (const name of request.files) {
    const start = () => {
      runner.begin(name);
      for (const kind of Object.keys(shared)) state.top.hooks[kind].push(...shared[kind]);
    };
    start();
    try { await load.file(path.resolve(name), start); } catch (error) { problems.push([name, words(error)]); }
    ready.push({ name, top: state.top, pending: state.pending });
  }
  if (!tracing) for (const place of Object.values(request.secret)) fs.truncateSync(place);
  early.clear();
  delete globalThis.__align_frameworks;
  if (guarded) guarded.close();
  const wanted = request.tests.length ? new Set(request.tests) : null;
  const skip = new Set(request.skip || []);
  const most = request.most ?? Infinity; // messages of one test
  let sent = 0;
  wire.state.most = most;
  const report = (message) => {
    if (tracing) send(message);
    else if ('end' in message) {
      results.push([message.end, message.outcome, guarded && guarded.changed() ? 'the program changed objects that the tests judge by' : message.detail, wire.state.sent - sent]);
      sent = wire.state.sent;
      wire.state.most = sent + most;
    }
  };
  for (const [name, detail] of problems) if (tracing) send({ problem: name, detail });
  for (const { name, top, pending } of ready) {
    runner.begin(name);
    Object.assign(state, { top, where: top, pending });
    await runner.run({ wanted, report, limit: request.limit, skip });
  }
  send({ done: true, gone: wire.state.gone, changed: Boolean(guarded && guarded.changed()), results, problems, loading: [...state.loading] });
  exit(0);
}

function words(error) {
  if (state.unsupported) return state.unsupported;
  const text = String((error && error.message) || error).split('\nRequire stack')[0].slice(0, 300);
  return error instanceof SyntaxError ? `SyntaxError: ${text} (${String(error.stack).split('\n')[0]})` : text;
}

main().catch((error) => { send({ problem: '', detail: words(error) }); exit(1); });
