// A list of which only the visible rows exist, so that 10,000 rows scroll like ten. Rows come from the server in pages.

import { update } from "./tree.js";

const ROW = 46; // pixels, as in page.css
const PAGE = 100;
const MARGIN = 8; // rows above and below the visible ones
const MOST_PIXELS = 15_000_000; // browsers do not show taller elements

export class VirtualList {
  // fetchPage(offset, limit) returns {total, rows}; rowTree(row) returns the row's content; open(row) shows a row.
  constructor(root, label, { fetchPage, rowTree, open, counted }) {
    Object.assign(this, { root, fetchPage, rowTree, open, counted });
    this.total = 0;
    this.active = -1;
    this.pages = new Map();
    this.nodes = new Map();
    this.version = 0;
    root.className = "list";
    root.tabIndex = 0;
    root.setAttribute("role", "listbox");
    root.setAttribute("aria-label", label);
    this.rows = document.createElement("div");
    this.rows.className = "rows";
    this.rows.setAttribute("role", "presentation");
    root.replaceChildren(this.rows);
    root.addEventListener("scroll", () => this.draw(), { passive: true });
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(Number(row.dataset.index));
    });
    new ResizeObserver(() => this.draw()).observe(root);
  }

  // Forgets the rows, and loads the visible ones again. With `reset`, scrolls to the top.
  async reload(reset) {
    this.version += 1;
    if (reset) {
      this.root.scrollTop = 0;
      this.active = -1;
      this.pages.clear();
    }
    const first = Math.floor(this.root.scrollTop / ROW / PAGE);
    const version = this.version;
    const answer = await this.fetchPage(first * PAGE, PAGE);
    if (version !== this.version) return;
    this.pages = new Map([[first, answer.rows]]);
    this.total = answer.total;
    this.rows.style.height = `${Math.min(this.total * ROW, MOST_PIXELS)}px`;
    if (this.active >= this.total) this.active = -1;
    this.counted?.(answer);
    this.draw();
  }

  async load(page) {
    if (this.pages.has(page)) return;
    this.pages.set(page, null); // on its way
    const version = this.version;
    try {
      const answer = await this.fetchPage(page * PAGE, PAGE);
      if (version !== this.version) return;
      this.pages.set(page, answer.rows);
      this.draw();
    } catch {
      this.pages.delete(page);
    }
  }

  row(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.drawNow();
    });
  }

  drawNow() {
    const first = Math.max(0, Math.floor(this.root.scrollTop / ROW) - MARGIN);
    const last = Math.min(this.total, Math.ceil((this.root.scrollTop + this.root.clientHeight) / ROW) + MARGIN);
    for (const [index, node] of this.nodes) {
      if (index < first || index >= last) {
        node.remove();
        this.nodes.delete(index);
      }
    }
    for (let index = first; index < last; index += 1) this.drawRow(index);
    if (first < last) {
      for (let page = Math.floor(first / PAGE); page <= Math.floor((last - 1) / PAGE); page += 1) this.load(page);
    }
    const shown = this.nodes.has(this.active);
    if (shown) this.root.setAttribute("aria-activedescendant", this.nodes.get(this.active).id);
    else this.root.removeAttribute("aria-activedescendant");
  }

  drawRow(index) {
    let node = this.nodes.get(index);
    if (node === undefined) {
      node = document.createElement("div");
      node.className = "row";
      node.id = `row-${index}`;
      node.dataset.index = index;
      node.setAttribute("role", "option");
      node.setAttribute("aria-posinset", index + 1);
      node.style.transform = `translateY(${index * ROW}px)`;
      this.nodes.set(index, node);
      this.rows.append(node);
    }
    node.setAttribute("aria-setsize", this.total);
    node.setAttribute("aria-selected", String(index === this.active));
    const row = this.row(index);
    update(node, row ? this.rowTree(row) : ["…"]);
  }

  key(event) {
    const visible = Math.max(1, Math.floor(this.root.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: visible, PageUp: -visible, Home: -this.total, End: this.total };
    if (event.key in moves) {
      event.preventDefault();
      this.choose(Math.min(this.total - 1, Math.max(0, this.active + moves[event.key])), false);
    } else if (event.key === "Enter" && this.active >= 0) {
      event.preventDefault();
      this.choose(this.active);
    }
  }

  // Selects a row and shows it. `moved` says whether the reader wants to leave the list for it.
  async choose(index, moved = true) {
    if (index < 0 || index >= this.total) return;
    this.active = index;
    const top = index * ROW;
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    else if (top + ROW > this.root.scrollTop + this.root.clientHeight) this.root.scrollTop = top + ROW - this.root.clientHeight;
    this.drawNow();
    if (!this.row(index)) {
      const page = Math.floor(index / PAGE);
      this.pages.delete(page);
      await this.load(page);
    }
    if (this.active === index && this.row(index)) this.open(this.row(index), moved);
  }
}
