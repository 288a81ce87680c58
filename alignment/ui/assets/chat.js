// The same questions to one or two models of the run, side by side.

import { h, update } from "./tree.js";

export function chatView({ api, post }) {
  let models, sides, root, run;

  function select(name, chosen, none) {
    const choices = models.map(([model, kind]) => h("option", { value: model, selected: model === chosen }, `${model} (${kind})`));
    return h("select", { name }, ...(none ? [h("option", { value: "", selected: !chosen }, "none")] : []), ...choices);
  }

  function form() {
    const last = models.at(-1)[0];
    const first = models.length > 1 ? models[0][0] : "";
    return [
      h("form", { class: "talk", "aria-label": "Question" },
        h("div", { class: "filters" },
          h("label", {}, "Model", select("left", last, false)),
          h("label", {}, "Compared with", select("right", first, true)),
          h("label", {}, "Mode", h("select", { name: "mode" }, h("option", { value: "chat" }, "dialogue"), h("option", { value: "continue" }, "continue the text"))),
          h("label", {}, "Tokens, at most", h("input", { name: "max_new_tokens", type: "number", min: "1", max: "8192", value: "256", class: "short", required: true })),
          h("label", {}, "Temperature", h("input", { name: "temperature", type: "number", min: "0", max: "5", step: "0.1", value: "0", class: "short", required: true })),
        ),
        h("label", { class: "hidden", for: "question" }, "Question"),
        h("textarea", { id: "question", name: "question", placeholder: "Ask both models. Ctrl+Enter sends.", required: true }),
        h("div", { class: "buttons" }, h("button", { class: "primary", type: "submit" }, "Send"), h("button", { type: "button", name: "clear" }, "New dialogue"),
          h("span", { class: "soft" }, "Models are loaded when they are first asked.")),
      ),
      h("div", { class: "sides", role: "log", "aria-label": "Dialogue", "aria-live": "polite" }),
    ];
  }

  function turnTree(turn) {
    if (turn.waiting) return h("section", { class: "message" }, h("h3", {}, turn.model), h("p", { class: "waiting" }, "…"));
    if (turn.error) return h("section", { class: "message" }, h("h3", {}, turn.model), h("p", { class: "waiting bad" }, turn.error));
    const note = turn.note ? ` · ${turn.note}` : "";
    return h("section", { class: "message" }, h("h3", {}, `${turn.title}${note}`), h("pre", { tabindex: "0", "aria-label": turn.title }, turn.content));
  }

  function draw() {
    const columns = Object.values(sides).filter((side) => side.turns.length);
    update(root.querySelector(".sides"), columns.map((side) => h("div", {}, h("h2", {}, side.model), ...side.turns.map(turnTree))));
  }

  async function ask(name, model, values) {
    if (sides[name].model !== model) sides[name] = { model, turns: [] };
    const side = sides[name];
    side.turns.push({ role: "user", title: "you", content: values.question });
    const messages = side.turns.filter((turn) => turn.role).map(({ role, content }) => ({ role, content }));
    const waiting = { waiting: true, model };
    side.turns.push(waiting);
    draw();
    const request = { model, mode: values.mode, max_new_tokens: Number(values.max_new_tokens), temperature: Number(values.temperature) };
    let turn;
    try {
      const answer = await post(run, { ...request, messages: values.mode === "chat" ? messages : messages.slice(-1) });
      const cut = answer.finish === "stop" ? "" : ", cut off";
      turn = { role: "assistant", title: model, content: answer.text, note: `${answer.tokens} tokens, ${answer.seconds} s${cut}` };
    } catch (error) {
      turn = { error: error.message, model };
    }
    side.turns[side.turns.indexOf(waiting)] = turn;
    draw();
  }

  async function send(event) {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(event.currentTarget));
    const button = root.querySelector("button[type=submit]");
    if (button.disabled || !values.question.trim()) return;
    button.disabled = true;
    if (!values.right) sides.right = { model: "", turns: [] };
    const asked = [ask("left", values.left, values)];
    if (values.right && values.right !== values.left) asked.push(ask("right", values.right, values));
    root.querySelector("textarea").value = "";
    await Promise.all(asked);
    button.disabled = false;
  }

  function build() {
    sides = { left: { model: "", turns: [] }, right: { model: "", turns: [] } };
    update(root, form());
    const questions = root.querySelector("form");
    questions.addEventListener("submit", send);
    questions.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) questions.requestSubmit();
    });
    root.querySelector("button[name=clear]").addEventListener("click", () => {
      sides = { left: { model: "", turns: [] }, right: { model: "", turns: [] } };
      draw();
      root.querySelector("textarea").focus();
    });
  }

  return {
    start(element, here) {
      root = element;
      run = here.run;
      models = undefined;
    },
    async poll(element, here) {
      const known = (await api(here.run, "models")).models;
      if (models && JSON.stringify(known) === JSON.stringify(models)) return;
      const first = !models?.length;
      models = known;
      if (!models.length) update(root, [h("p", { class: "empty" }, "There is no model to talk to yet. The first training stage makes one.")]);
      else if (first) build();
    },
  };
}
