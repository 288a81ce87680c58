'use strict';
// Transforms the source files of a repository for the loader before any test runs. Prints {file, text} for each file that the
// transformation changes, and {file, problem} for each file that cannot be transformed.
const fs = require('node:fs'), path = require('node:path');
const request = JSON.parse(fs.readFileSync('align.json', 'utf8'));
const load = require('./load.cjs');

load.install(request, {});
const send = (message) => fs.writeSync(1, '\n' + request.nonce + JSON.stringify(message) + '\n');
for (const [file, given] of request.sources) {
  try {
    const text = given ?? fs.readFileSync(path.join(request.root, file), 'utf8');
    const transformed = load.transformed(text, path.join(request.root, file));
    if (transformed !== text) send({ file, text: transformed });
  } catch (error) {
    send({ file, problem: String(error && error.message).slice(0, 300) });
  }
}
send({ done: true, tool: load.tool() || '' });
