// The views of many rows: rollouts, and completions before and after a stage. A list on the left, one row on the right.

import { h, update } from "./tree.js";
import { VirtualList } from "./virtual_list.js";

function message(title, text) {
  return h("section", { class: "message" }, h("h3", {}, title), h("pre", { tabindex: "0", "aria-label": title }, text));
}

function labelled(text, control) {
  return h("label", {}, text, control);
}

function options(values, chosen, any) {
  const all = any === null ? values.map((value) => [value, value]) : [["", any], ...values.map((value) => [value, value])];
  return all.map(([value, text]) => h("option", { value, selected: value === chosen }, text));
}

function textOf(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 1);
}

// ---- rollouts ----

function rewardClass(reward) {
  if (reward === null) return "warn";
  return reward > 0 ? "good" : "bad";
}

function rolloutRow(row) {
  const reward = row.reward === null ? "no reward" : `reward ${Number(row.reward.toFixed(4))}`;
  const turns = row.turns > 1 ? `${row.turns} turns, ` : "";
  return [
    h("div", { class: "line" }, h("span", {}, row.task ?? "(no id)"), h("span", { class: `number ${rewardClass(row.reward)}` }, reward)),
    h("div", { class: "line" }, h("span", {}, `step ${row.step} · ${row.verdict || "no verdict"}`), h("span", { class: "number" }, `${turns}${row.tokens} tokens`)),
  ];
}

function rolloutTree({ row }) {
  const shown = new Set(["step", "task", "reward", "verdict", "tokens", "prompt", "turns", "detail"]);
  const facts = [`step ${row.step}`, `reward ${row.reward === null ? "none" : row.reward}`, row.verdict === undefined ? "" : row.verdict || "passed", `${row.tokens} tokens`];
  const rest = Object.entries(row).filter(([name, value]) => !shown.has(name) && value !== null && value !== "");
  return [
    h("h2", { tabindex: "-1" }, row.task ?? "rollout"),
    h("div", { class: "facts" }, ...facts.filter(Boolean).map((fact) => h("span", {}, fact))),
    row.detail ? message("verdict", row.detail) : null,
    ...row.prompt.map((turn) => message(`prompt: ${turn.role}`, textOf(turn.content))),
    ...row.turns.map((turn) => message(`turn: ${turn.role}`, textOf(turn.content))),
    ...rest.map(([name, value]) => message(name.replaceAll("_", " "), textOf(value))),
  ].filter(Boolean);
}

const ROLLOUTS = {
  list: "rollouts",
  detail: "rollout",
  label: "Rollouts",
  none: "There are no rollouts: only GRPO stages write them.",
  filters: (answer, chosen) => [
    answer.stages.length > 1 ? labelled("Stage", h("select", { name: "stage" }, ...options(answer.stages, answer.stage, null))) : null,
    labelled(`Step (${answer.steps[0]} to ${answer.steps[1]})`, h("input", { name: "step", type: "number", min: "0", class: "short", value: chosen.step })),
    labelled("Task contains", h("input", { name: "task", type: "search", value: chosen.task })),
    labelled("Verdict", h("select", { name: "verdict" }, ...options(answer.verdicts, chosen.verdict || "", "any"))),
    labelled("Reward above", h("input", { name: "above", type: "number", step: "any", class: "short", value: chosen.above })),
    labelled("Reward below", h("input", { name: "below", type: "number", step: "any", class: "short", value: chosen.below })),
    h("label", { class: "check" }, h("input", { name: "ungraded", type: "checkbox", value: "1", checked: chosen.ungraded === "1" }), "only without reward"),
  ],
  row: rolloutRow,
  key: (row, answer) => ({ stage: answer.stage, file: row.file, offset: row.offset }),
  tree: rolloutTree,
};

// ---- completions ----

function score(value) {
  return value === null ? "–" : String(Number(value.toFixed(3)));
}

const CHANGES = { better: ["better", "good"], worse: ["worse", "bad"], same: ["same", "soft"] };

function completionRow(row) {
  const [text, tone] = CHANGES[row.change];
  return [
    h("div", { class: "line" }, h("span", {}, row.task), h("span", { class: tone }, text)),
    h("div", { class: "line" }, h("span", {}, row.benchmark + (row.sample ? `, sample ${row.sample + 1}` : "")), h("span", { class: "number" }, `${score(row.before)} → ${score(row.after)}`)),
  ];
}

function side(name, detail) {
  const scores = Object.entries(detail.scores || {}).map(([key, value]) => `${key} ${score(value)}`);
  const verdict = [...new Set([detail.status, detail.reason])].filter(Boolean).join(": ");
  const ending = detail.finish ? `ends with ${detail.finish}, ${detail.tokens} tokens` : "";
  return h(
    "div",
    {},
    message(name, detail.completion ?? ""),
    h("p", {}, [verdict, ...scores, ending].filter(Boolean).join(" · ")),
    detail.detail ? h("p", {}, detail.detail) : null,
  );
}

const COMPLETIONS = {
  list: "completions",
  detail: "completion",
  label: "Completions before and after the stage",
  none: "Completions can be compared when a stage's model was measured before and after (evaluate: in the recipe).",
  filters: (answer, chosen) => [
    labelled("Stage", h("select", { name: "stage" }, ...options(answer.stages, answer.stage, null))),
    labelled("Benchmark", h("select", { name: "benchmark" }, ...options(answer.benchmarks, chosen.benchmark || "", "any"))),
    labelled("Change", h("select", { name: "change" }, ...options(["better", "worse", "same"], chosen.change || "", "any"))),
    labelled("Task contains", h("input", { name: "task", type: "search", value: chosen.task })),
  ],
  row: completionRow,
  key: (row, answer) => ({ stage: answer.stage, benchmark: row.benchmark, task: row.task, sample: row.sample }),
  tree: ({ before, after, details }, row) => [
    h("h2", { tabindex: "-1" }, row.task),
    h("div", { class: "facts" }, h("span", {}, row.benchmark), h("span", {}, `score ${score(row.before)} → ${score(row.after)}`)),
    h("div", { class: "sides" }, side(`before: ${before}`, details[0]), side(`after: ${after}`, details[1])),
  ],
};

// ---- list and detail ----

function listAndDetail(kind, { api, address }) {
  let list, answer, chosen, seen, root;

  function filterKey() {
    return JSON.stringify(chosen);
  }

  function readFilters(form) {
    return Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  }

  function drawFilters() {
    const form = root.querySelector("form");
    if (form.contains(document.activeElement) && form.children.length) return; // the reader is typing
    update(form, kind.filters(answer, chosen).filter(Boolean));
  }

  function drawCount(counted) {
    answer = counted;
    const of = counted.total === counted.all ? "" : ` of ${counted.all.toLocaleString("en")}`;
    root.querySelector(".count").textContent = `${counted.total.toLocaleString("en")}${of} ${kind.list}`;
  }

  async function open(here, row, moved) {
    const detail = root.querySelector(".detail");
    try {
      update(detail, kind.tree(await api(here.run, kind.detail, kind.key(row, answer)), row));
    } catch (error) {
      update(detail, [h("p", { class: "empty" }, error.message)]);
    }
    if (moved && matchMedia("(max-width: 820px)").matches) {
      detail.querySelector("h2")?.focus({ preventScroll: true });
      detail.scrollIntoView({ block: "start" });
    }
  }

  function build(here) {
    update(root, [
      h("form", { class: "filters", "aria-label": "Filter", role: "search" }),
      h("p", { class: "count", role: "status" }),
      h("div", { class: "pair" }, h("div", {}), h("section", { class: "detail", "aria-label": "Selected" }, h("p", { class: "empty" }, "Select a row to read it. The arrow keys move the selection."))),
    ]);
    const form = root.querySelector("form");
    const changed = () => history.replaceState(null, "", address(here.run, kind.list, readFilters(form)));
    form.addEventListener("submit", (event) => event.preventDefault());
    let timer;
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        changed();
        chosen = readFilters(form);
        list.reload(true).catch((error) => {
          root.querySelector(".count").textContent = error.message;
        });
      }, 250);
    });
    list = new VirtualList(root.querySelector(".pair > div"), kind.label, {
      fetchPage: (offset, limit) => api(here.run, kind.list, { ...chosen, offset, limit }),
      rowTree: kind.row,
      open: (row, moved) => open(here, row, moved),
      counted: drawCount,
    });
  }

  return {
    start(element, here) {
      root = element;
      list = answer = seen = undefined;
      chosen = here.parameters;
    },
    async poll(element, here) {
      const counts = await api(here.run, kind.list, { ...chosen, limit: 1 });
      if (!counts.stages.length) {
        update(root, [h("p", { class: "empty" }, kind.none)]);
        list = undefined;
        return;
      }
      if (!list) build(here);
      answer = counts;
      const state = `${filterKey()} ${counts.stage} ${counts.all} ${counts.total}`;
      if (state === seen) return;
      const reset = seen === undefined;
      seen = state;
      drawFilters();
      await list.reload(reset);
    },
    stop() {
      list = undefined;
    },
  };
}

export function browser(tools) {
  return { rollouts: listAndDetail(ROLLOUTS, tools), completions: listAndDetail(COMPLETIONS, tools) };
}
