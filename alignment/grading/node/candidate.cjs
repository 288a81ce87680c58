'use strict';
// The candidate's process: the repository without its tests, with the answer in the function's place.
const path = require('node:path'), url = require('node:url');
const asked = JSON.parse(require('node:fs').readFileSync('align.json', 'utf8'));
const wire = require('./wire.cjs'), load = require('./load.cjs');
const { exit } = process;

async function serve() {
  load.install(asked, {});
  process.chdir(asked.root);
  await load.file(path.resolve(asked.file));
  const target = globalThis.__align_target;
  for (;;) {
    let request;
    try { request = wire.receive(); } catch { exit(0); }
    let reply, promised = false;
    try {
      if (request.call !== wire.TARGET) {
        reply = wire.call(request);
      } else {
        const made = target(...request.args.map((item) => wire.decode(item)));
        promised = made instanceof Promise;
        reply = { value: wire.encode(promised ? await made : made), promised };
      }
    } catch (error) {
      reply = { ...wire.failure(error), promised };
    }
    wire.send(reply);
  }
}

serve().catch((error) => { process.stderr.write(String(error && error.stack) + '\n'); exit(1); });
