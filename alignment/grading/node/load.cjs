'use strict';
// Loads the modules of a repository as the repository's own tools do. Imports of test frameworks get the objects of this runner.
// TypeScript and ES modules are transformed by the transformer that the repository has installed. Paths without a suffix and the
// aliases of tsconfig are resolved.
const Module = require('node:module'), fs = require('node:fs'), path = require('node:path'), url = require('node:url');

const ENDINGS = ['.ts', '.tsx', '.mts', '.cts', '.js', '.jsx', '.mjs', '.cjs', '.json'];
const SOURCE = /\.(?:[mc]?[jt]s|[jt]sx)$/;
const DONE = '/*transformed*/';
const waiting = new Map(); // packages that are only ES modules: they are imported first, then required
let settings, made, memory;

const isOwn = (file) => file.startsWith(settings.root + path.sep) && !file.includes('/node_modules/');

// Returns the first transformer that the repository, or one of its packages, can resolve: [name, (text, file) => text].
function transformer(root) {
  const roots = [path.join(root, 'package.json')];
  const at = (name, from) => { try { return Module.createRequire(from).resolve(name); } catch { return null; } };
  for (const name of ['vite', 'vitest', 'tsx', 'tsup', 'esbuild-jest', 'esbuild-register', 'ts-jest', 'ts-node', 'unbuild', 'babel-jest', 'jest', '@babel/register']) {
    const found = at(name + '/package.json', roots[0]) || at(name, roots[0]);
    if (found) roots.push(found, ...['vite', 'esbuild', 'babel-jest'].map((inner) => at(inner + '/package.json', found)).filter(Boolean));
  }
  for (const [name, make] of Object.entries(TRANSFORMERS)) {
    for (const from of roots) {
      const found = at(name, from);
      const tool = found && make(found, root, from);
      if (tool) return [name, tool];
    }
  }
  return settings.typescript ? ['typescript', TRANSFORMERS.typescript(settings.typescript)] : null;
}

const loaderOf = (file) => (/\.[mc]?ts$/.test(file) ? 'ts' : file.endsWith('.tsx') ? 'tsx' : 'jsx');
const TRANSFORMERS = {
  esbuild(found) {
    const tool = require(found);
    const options = { format: 'cjs', target: 'node18', sourcemap: false, jsx: 'automatic', define: { 'import.meta.url': '__align_url' },
                      supported: { 'dynamic-import': false },
                      tsconfigRaw: { compilerOptions: { experimentalDecorators: true } } };
    return (text, file) => tool.transformSync(text, { ...options, loader: loaderOf(file), sourcefile: file }).code;
  },
  sucrase(found) {
    const tool = require(found);
    return (text, file) => tool.transform(text, { transforms: ['imports', 'jsx', ...(/\.[mc]?tsx?$/.test(file) ? ['typescript'] : [])], jsxRuntime: 'automatic', filePath: file }).code;
  },
  typescript(found) {
    const tool = require(found);
    if (typeof tool.transpileModule !== 'function') return null;
    const options = { module: tool.ModuleKind.CommonJS, target: tool.ScriptTarget.ES2022, esModuleInterop: true, allowJs: true, jsx: tool.JsxEmit.ReactJSX,
                      experimentalDecorators: true };
    return (text, file) => {
      const name = file.replace(/\.[mc](?=[jt]s$)/, '.');
      const made = tool.transpileModule(text, { compilerOptions: options, fileName: name, reportDiagnostics: true });
      const wrong = (made.diagnostics || []).find((item) => item.category === 1);
      if (wrong) throw new SyntaxError(tool.flattenDiagnosticMessageText(wrong.messageText, ' '));
      return made.outputText;
    };
  },
  '@babel/core'(found, root, from) {
    const tool = require(found), plugins = [];
    for (const name of ['@babel/plugin-transform-modules-commonjs']) {
      try { plugins.push(Module.createRequire(from).resolve(name)); } catch { return null; }
    }
    return (text, file) => tool.transformSync(text, { filename: file, cwd: root, plugins, babelrc: true, envName: 'test', compact: false }).code;
  },
};

function transformed(text, file) {
  if (!settings.transform || text.startsWith(DONE)) return text;
  const plain = !/\.(?:[mc]?ts|tsx|jsx)$/.test(file) && !/^\s*(?:import|export)\b/m.test(text) && !/\bimport(?:\s*\(|\.meta\b)/.test(text);
  if (plain) return text;
  made ??= transformer(settings.root);
  if (!made) throw new Error('no transformer for TypeScript or ES modules is installed: npm install --save-dev esbuild');
  const head = text.startsWith('#!') ? text.slice(0, text.indexOf('\n')) : '';
  const code = made[1](text.slice(head.length), file);
  return DONE + (code.includes('__align_url') ? `const __align_url = require('node:url').pathToFileURL(__filename).href;` : '') + code;
}

function existing(base) {
  const tried = [base, ...ENDINGS.map((ending) => base + ending), ...ENDINGS.map((ending) => path.join(base, 'index' + ending))];
  const swapped = /\.([mc]?)js(x?)$/.exec(base);
  if (swapped) tried.push(base.slice(0, swapped.index) + `.${swapped[1]}ts${swapped[2]}`, base.slice(0, swapped.index) + '.tsx');
  return tried.find((file) => { try { return fs.statSync(file).isFile(); } catch { return false; } });
}

function resolved(request, from) {
  if (request.startsWith('.')) return existing(path.resolve(path.dirname(from), request));
  if (request.startsWith('/')) return existing(request);
  for (const [pattern, targets] of settings.aliases || []) {
    const [before, after] = pattern.split('*');
    const star = after !== undefined;
    if (star ? !(request.startsWith(before) && request.endsWith(after)) : request !== pattern) continue;
    const inner = star ? request.slice(before.length, request.length - after.length) : '';
    for (const target of targets) {
      const found = existing(path.resolve(settings.root, target.replace('*', inner)));
      if (found) return found;
    }
  }
  return undefined;
}

function resolveAsBundlers(_resolveFilename) {
  Module._resolveFilename = function (request, parent, ...rest) {
    if (parent && parent.filename && isOwn(parent.filename)) {
      const found = !Module.isBuiltin(request) && resolved(request, parent.filename);
      if (found) return found;
    }
    return _resolveFilename.call(this, request, parent, ...rest);
  };
}

// settings: the content of align.json. frameworks: the object that a test file gets for each framework module, by module name.
// early: the text of files that are no longer on the disk, by path.
function install(given, frameworks, early = new Map()) {
  settings = given;
  memory = early;
  const { _load, _resolveFilename } = Module;
  Module._load = function (request, parent, ...rest) {
    const named = Object.hasOwn(frameworks, request) && parent && (!parent.filename || isOwn(parent.filename));
    if (named) return frameworks[request];
    try {
      return _load.call(this, request, parent, ...rest);
    } catch (error) {
      if (!settings.transform || !error || error.code !== 'ERR_REQUIRE_ESM') throw error;
      const file = Module._resolveFilename(request, parent);
      if (waiting.get(file)) return waiting.get(file);
      waiting.set(file, null);
      throw error;
    }
  };
  if (settings.transform) resolveAsBundlers(_resolveFilename);
  if (!settings.transform && !memory.size) return;
  for (const ending of ENDINGS.slice(0, -1)) {
    const before = Module._extensions[ending] || Module._extensions['.js'];
    Module._extensions[ending] = function (module, file) {
      if (memory.has(file)) return module._compile(transformed(memory.get(file), file), file);
      if (!settings.transform || !isOwn(file)) return before(module, file);
      let text = '';
      try { text = fs.readFileSync(path.join(settings.compiled, path.relative(settings.root, file)), 'utf8'); } catch { /* not transformed ahead of time */ }
      return module._compile(text || transformed(fs.readFileSync(file, 'utf8'), file), file);
    };
  }
}

// Loads one file: as node does or, if sources are transformed, as CommonJS. If the file needs packages that are only ES modules,
// these packages are imported, `again` is called, and the file is loaded again.
async function file(name, again = () => {}) {
  if (!settings.transform) return memory.has(name) ? require(name) : import(url.pathToFileURL(name).href);
  for (let left = 50; ; left--) {
    try {
      return require(name);
    } catch (error) {
      const missing = [...waiting].filter(([, loaded]) => !loaded).map(([found]) => found);
      if (!missing.length || !left) throw error;
      for (const found of missing) waiting.set(found, await import(url.pathToFileURL(found).href));
      again();
      for (const key of Object.keys(require.cache)) if (isOwn(key)) delete require.cache[key];
    }
  }
}

// Returns the path of a file of the repository, or of a package that it has installed.
function find(name) {
  return existing(path.resolve(name)) || Module.createRequire(path.join(settings.root, 'package.json')).resolve(name);
}

module.exports = { DONE, find, SOURCE, file, install, transformed, tool: () => (made ??= transformer(settings.root)) && made[0] };
