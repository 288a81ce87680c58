'use strict';
// The source of a repository as the loader wants it, made once: {file, text} of what needs it, {file, problem} where it fails.
const fs = require('node:fs'), path = require('node:path');
const asked = JSON.parse(fs.readFileSync('align.json', 'utf8'));
const load = require('./load.cjs');

load.install(asked, {});
const say = (message) => fs.writeSync(1, '\n' + asked.nonce + JSON.stringify(message) + '\n');
for (const [file, given] of asked.sources) {
  try {
    const text = given ?? fs.readFileSync(path.join(asked.root, file), 'utf8');
    const made = load.transformed(text, path.join(asked.root, file));
    if (made !== text) say({ file, text: made });
  } catch (error) {
    say({ file, problem: String(error && error.message).slice(0, 300) });
  }
}
say({ done: true, tool: load.tool() || '' });
