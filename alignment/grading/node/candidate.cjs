'use strict';
// The candidate's process. It loads the repository without tests, with the model's answer in place of the function under test,
// and answers the calls of the tester's process.
const path = require('node:path'), url = require('node:url');
const settings = JSON.parse(require('node:fs').readFileSync('align.json', 'utf8'));
const wire = require('./wire.cjs'), load = require('./load.cjs');
const { exit } = process;

async function serve() {
  load.install(settings, {});
  process.chdir(settings.root);
  await load.file(path.resolve(settings.file));
  const target = globalThis.__align_target;
  for (;;) {
    let request;
    try { request = wire.receive(); } catch { exit(0); }
    let reply, promised = false;
    try {
      if (request.call !== wire.TARGET) {
        reply = wire.call(request);
      } else {
        const result = target(...request.args.map((item) => wire.decode(item)));
        promised = result instanceof Promise;
        reply = { value: wire.encode(promised ? await result : result), promised };
      }
    } catch (error) {
      reply = { ...wire.failure(error), promised };
    }
    wire.send(reply);
  }
}

serve().catch((error) => { process.stderr.write(String(error && error.stack) + '\n'); exit(1); });
