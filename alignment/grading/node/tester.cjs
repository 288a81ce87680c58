'use strict';
// The tests' process. trace: every test, and the functions that it calls; proxied: the function under test answers from
// another process; whole: it is here, with the tests, whose files are gone from the disk before any of them runs.
const fs = require('node:fs'), path = require('node:path');
const asked = JSON.parse(fs.readFileSync('align.json', 'utf8'));
fs.unlinkSync('align.json');
const wire = require('./wire.cjs'), load = require('./load.cjs'), runner = require('./runner.cjs'), frameworks = require('./frameworks.cjs');
const { state } = runner, { writeSync } = fs, { stringify } = JSON, { exit } = process;
const nonce = asked.nonce;
const say = (message) => {
  const line = Buffer.from('\n' + nonce + stringify(message) + '\n');
  for (let at = 0; at < line.length; ) at += writeSync(1, line, at);
};

const guarded = asked.mode === 'whole' ? require('./guard.cjs') : null;

// What is thrown where nobody waits for it, a callback's assertion for example, is the current test's failure.
function own(error) {
  if (!state.current) return;
  state.current.failure ??= error ?? new Error('thrown: nothing');
  state.current.abort(error);
}

async function main() {
  process.on('uncaughtException', own);
  process.on('unhandledRejection', own);
  const known = await frameworks.make(asked.library, asked.root);
  globalThis.__align_frameworks = known;
  const early = new Map(); // CommonJS can be loaded from memory; of ES modules node itself reads the files
  for (const [name, place] of asked.mode === 'whole' ? Object.entries(asked.secret) : []) {
    if (asked.esm.includes(name)) continue;
    early.set(path.resolve(asked.root, name), fs.readFileSync(place, 'utf8'));
    fs.truncateSync(place);
  }
  load.install(asked, known, early);
  process.chdir(asked.root);
  globalThis.__align_hit = (number) => { if (state.current) state.current.hits.add(number); else state.loading.add(number); };
  wire.state.strict = true;
  if (asked.mode === 'proxied') globalThis.__align_call = (args) => wire.ask({ call: wire.TARGET, args: args.map((item) => wire.encode(item)) });
  const problems = [], results = [], ready = [];
  const tracing = asked.mode === 'trace';
  runner.begin('');
  for (const name of asked.setup) {
    try { await load.file(load.find(name)); } catch (error) { if (tracing) say({ problem: name, detail: words(error) }); }
  }
  const shared = state.top.hooks;
  for (const name of asked.files) {
    const start = () => {
      runner.begin(name);
      for (const kind of Object.keys(shared)) state.top.hooks[kind].push(...shared[kind]);
    };
    start();
    try { await load.file(path.resolve(name), start); } catch (error) { problems.push([name, words(error)]); }
    ready.push({ name, top: state.top, pending: state.pending });
  }
  if (!tracing) for (const place of Object.values(asked.secret)) fs.truncateSync(place);
  early.clear();
  delete globalThis.__align_frameworks;
  if (guarded) guarded.close();
  const wanted = asked.tests.length ? new Set(asked.tests) : null;
  const skip = new Set(asked.skip || []);
  const most = asked.most ?? Infinity; // messages of one test
  let sent = 0;
  wire.state.most = most;
  const told = (message) => {
    if (tracing) say(message);
    else if ('end' in message) {
      results.push([message.end, message.outcome, guarded && guarded.changed() ? 'what judges was changed' : message.detail, wire.state.sent - sent]);
      sent = wire.state.sent;
      wire.state.most = sent + most;
    }
  };
  for (const [name, detail] of problems) if (tracing) say({ problem: name, detail });
  for (const { name, top, pending } of ready) {
    runner.begin(name);
    Object.assign(state, { top, where: top, pending });
    await runner.run({ wanted, told, limit: asked.limit, skip });
  }
  say({ done: true, gone: wire.state.gone, changed: Boolean(guarded && guarded.changed()), results, problems, loading: [...state.loading] });
  exit(0);
}

function words(error) {
  if (state.unsupported) return state.unsupported;
  const text = String((error && error.message) || error).split('\nRequire stack')[0].slice(0, 300);
  return error instanceof SyntaxError ? `SyntaxError: ${text} (${String(error.stack).split('\n')[0]})` : text;
}

main().catch((error) => { say({ problem: '', detail: words(error) }); exit(1); });
