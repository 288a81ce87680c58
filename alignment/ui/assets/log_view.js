// The log of a stage, followed while the stage runs.

import { h, update } from "./tree.js";

const MOST_CHARACTERS = 1_000_000;

export function logView({ api, address }) {
  let next, chosen;

  function controls(stages, here) {
    const names = stages.map(([name]) => name);
    const files = stages.find(([name]) => name === chosen.stage)?.[1] ?? [];
    return [
      h("label", {}, "Stage", h("select", { name: "stage" }, ...names.map((name) => h("option", { value: name, selected: name === chosen.stage }, name)))),
      h("label", {}, "Log", h("select", { name: "file" }, ...files.map((name) => h("option", { value: name, selected: name === chosen.file }, name)))),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "follow", checked: true }), "follow"),
    ];
  }

  function choose(root, here, stages) {
    const wanted = here.parameters.stage;
    const known = stages.find(([name]) => name === wanted) ?? stages.at(-1);
    chosen = { stage: known[0], file: known[1].includes(here.parameters.file) ? here.parameters.file : known[1].includes("rank0.log") ? "rank0.log" : known[1][0] };
    next = undefined;
    update(root, [
      h("form", { class: "filters", "aria-label": "Log" }, ...controls(stages, here)),
      h("pre", { class: "log", tabindex: "0", role: "region", "aria-label": `log of ${chosen.stage}` }),
    ]);
    root.querySelector("form").addEventListener("change", (event) => {
      if (event.target.name === "follow") return;
      const form = new FormData(event.currentTarget);
      location.hash = address(here.run, "log", { stage: form.get("stage"), file: event.target.name === "stage" ? "" : form.get("file") });
    });
  }

  return {
    start() {
      chosen = undefined;
    },
    async poll(root, here) {
      const { tabs } = await api(here.run, "overview");
      if (!tabs.logs.length) {
        update(root, [h("p", { class: "empty" }, "No stage has a log yet.")]);
        return;
      }
      const { stage, file } = here.parameters;
      if (!chosen || (stage && stage !== chosen.stage) || (file && file !== chosen.file)) {
        root.replaceChildren();
        choose(root, here, tabs.logs);
      }
      const box = root.querySelector("pre");
      const part = await api(here.run, "log", { ...chosen, from: next });
      const follow = root.querySelector("[name=follow]").checked;
      if (part.first !== next && next !== undefined && part.first < next) box.replaceChildren(); // the log began anew
      if (part.text) {
        box.append(part.text);
        box.normalize();
        const text = box.firstChild;
        if (text.length > MOST_CHARACTERS) text.deleteData(0, text.length - MOST_CHARACTERS);
        if (follow) box.scrollTop = box.scrollHeight;
      }
      next = part.next;
    },
  };
}
