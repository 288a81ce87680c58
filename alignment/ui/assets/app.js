// The live page: routes, the list of runs, and the views. It polls the server, which answers "unchanged" most of the time.

import "./components.js";
import { h, update } from "./tree.js";
import { browser } from "./browser.js";
import { chatView } from "./chat.js";
import { logView } from "./log_view.js";

const POLL_MILLISECONDS = 2000;
const STATES = { done: "done", running: "running", failed: "failed", stopped: "stopped", waiting: "to do" };
const byId = (id) => document.getElementById(id);

// ---- requests ----

async function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined));
  const response = await fetch(`${path}?${query}`, { headers: { Accept: "application/json" } });
  const body = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(body.error || `status ${response.status}`), { answered: true });
  return body;
}

export function api(run, view, parameters) {
  return get(`/api/runs/${encodeURIComponent(run)}/${view}`, parameters);
}

async function post(run, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(`/api/runs/${encodeURIComponent(run)}/chat`, { method: "POST", headers, body: JSON.stringify(body) });
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error || `status ${response.status}`);
  return answer;
}

// ---- routes: #/RUN/VIEW?name=value ----

function route() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [, run = "", view = "overview"] = path.split("/").map(decodeURIComponent);
  return { run, view: view || "overview", parameters: Object.fromEntries(new URLSearchParams(query)) };
}

export function address(run, view, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  return `#/${encodeURIComponent(run)}/${view}${query.size ? `?${query}` : ""}`;
}

// ---- the list of runs and the head ----

function mark(state) {
  return h("span", { class: `state ${state}` }, STATES[state]);
}

function runItem(run, here) {
  const line = [`${run.done} of ${run.stages} stages`, run.where].filter(Boolean).join(" · ");
  return h(
    "li",
    {},
    h(
      "a",
      { href: address(run.id, "overview"), "aria-current": run.id === here ? "page" : null },
      h("span", { class: "name" }, run.name),
      h("span", { class: "soft" }, mark(run.state), " ", line),
    ),
  );
}

function headTree(run) {
  const facts = [`${run.done} of ${run.stages} stages`, run.where, run.time, run.seed === null ? "" : `seed ${run.seed}`, run.folder];
  return [
    h("div", { class: "headline" }, h("h1", {}, run.name), mark(run.state)),
    h("div", { class: "facts" }, ...facts.filter(Boolean).map((fact) => h("span", {}, fact))),
    h("div", { class: "overall" }, h("progress", { value: run.share, max: 1, "aria-label": "share of the stages that are done" })),
    run.message ? h("div", { class: "failure", role: "alert" }, h("pre", {}, run.message)) : null,
  ].filter(Boolean);
}

const TABS = [
  ["overview", "Overview"],
  ["curves", "Curves"],
  ["rollouts", "Rollouts"],
  ["completions", "Completions"],
  ["data", "Data"],
  ["log", "Logs"],
  ["chat", "Chat"],
];

function drawTabs(here) {
  update(
    byId("tabs"),
    TABS.map(([view, title]) => h("a", { href: address(here.run, view), "aria-current": view === here.view ? "page" : null }, title)),
  );
}

// ---- views: each has start(root, here), poll(root, here), and may have stop() ----

function empty(text) {
  return h("p", { class: "empty" }, text);
}

const overview = {
  async poll(root, here) {
    const { sections } = await api(here.run, "overview");
    update(root, sections.flatMap(([title, tree]) => [h("h2", {}, title), tree]));
  },
};

const curves = {
  async poll(root, here) {
    const { sections } = await api(here.run, "curves");
    const trees = sections.map(([name, title, cards]) => h("section", { "aria-label": name }, h("h2", {}, title), cards));
    update(root, trees.length ? trees : [empty("No training stage has logged two steps yet.")]);
  },
};

const data = {
  async poll(root, here) {
    const { sections } = await api(here.run, "data");
    const trees = sections.map(([name, title, content]) => h("section", { "aria-label": name }, h("h2", {}, title), content));
    update(root, trees.length ? trees : [empty("No stage has described its data yet.")]);
  },
};

const VIEWS = { overview, curves, data, ...browser({ api, address }), log: logView({ api, address }), chat: chatView({ api, post }) };

// ---- the loop ----

let shown = null; // the route whose view is on the page
let spokenState = "";

async function drawHead(here) {
  const { runs } = await get("/api/runs");
  update(byId("runs"), runs.map((run) => runItem(run, here.run)));
  const run = runs.find((item) => item.id === here.run);
  if (!run) return runs;
  update(byId("head"), headTree(run));
  document.title = `${run.name}: ${STATES[run.state]} · align`;
  const state = `${run.name} is ${STATES[run.state]}`;
  if (spokenState && spokenState !== state) byId("spoken").textContent = state;
  spokenState = state;
  return runs;
}

async function show() {
  const here = route();
  const view = VIEWS[here.view] || overview;
  const place = `${here.run}/${here.view}`;
  if (shown?.place !== place) {
    shown?.view.stop?.();
    shown = { place, view };
    byId("view").replaceChildren();
    drawTabs(here);
    spokenState = "";
    view.start?.(byId("view"), here);
  }
  const runs = await drawHead(here);
  if (!here.run || !runs.some((run) => run.id === here.run)) {
    update(byId("head"), [h("h1", {}, "Runs")]);
    update(byId("tabs"), []);
    if (runs.length && !here.run) location.replace(address((runs.find((run) => run.state === "running") || runs[0]).id, "overview"));
    else update(byId("view"), [empty(runs.length ? "There is no such run." : "There are no runs yet. They appear here when align run begins.")]);
    shown = null;
    return;
  }
  if (shown?.place === place) await view.poll(byId("view"), route());
}

let busy = false;
let again = false;

async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  try {
    await show();
    byId("offline").hidden = true;
  } catch (error) {
    if (error.answered) update(byId("view"), [empty(error.message)]);
    else byId("offline").hidden = false;
    if (error.answered) shown = null;
    else if (!(error instanceof TypeError)) console.error(error);
  }
  busy = false;
  if (again) {
    again = false;
    refresh();
  }
}

window.addEventListener("hashchange", () => {
  if (location.hash === "#main") {
    history.replaceState(null, "", shown ? `#/${shown.place}` : "#/");
    byId("main").focus();
    return;
  }
  refresh();
});
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refresh());
setInterval(() => document.visibilityState === "visible" && refresh(), POLL_MILLISECONDS);
refresh();
