// Behaviour that the static report and the live page share: values under the pointer, and the switch of the theme.

const SVG = "http://www.w3.org/2000/svg";
const THEMES = ["auto", "light", "dark"];

function remembered() {
  try {
    return localStorage.getItem("theme") || "auto";
  } catch {
    return "auto"; // storage is blocked
  }
}

function applyTheme(theme) {
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
  for (const button of document.querySelectorAll("[data-theme-switch]")) {
    button.hidden = false;
    button.textContent = `Theme: ${theme}`;
  }
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // the theme lasts until the page is closed
  }
}

function numbers(picture, name) {
  return picture.dataset[name].split(" ").map(Number);
}

function shortNumber(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

// The last polyline of a chart is the smoothed one, the first has the measured values.
function nearest(picture, x) {
  const points = picture.querySelector("polyline").getAttribute("points").split(" ");
  let best = null;
  for (const point of points) {
    const [px, py] = point.split(",").map(Number);
    if (best === null || Math.abs(px - x) < Math.abs(best[0] - x)) best = [px, py];
  }
  return best;
}

function clear(picture) {
  for (const mark of picture.querySelectorAll(".cross, .dot")) mark.remove();
  picture.parentElement.querySelector(".hint")?.remove();
}

function mark(picture, tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  picture.append(node);
}

function showValue(picture, clientX) {
  const box = picture.getBoundingClientRect();
  const [left, right, top, bottom] = numbers(picture, "plot");
  const [firstStep, lastStep] = numbers(picture, "steps");
  const [low, high] = numbers(picture, "values");
  const [x, y] = nearest(picture, ((clientX - box.left) / box.width) * picture.viewBox.baseVal.width);
  clear(picture);
  mark(picture, "line", { x1: x, x2: x, y1: top, y2: bottom, class: "cross" });
  mark(picture, "circle", { cx: x, cy: y, r: 3.5, class: "dot" });
  const step = firstStep + ((x - left) / (right - left)) * (lastStep - firstStep);
  const value = high - ((y - top) / (bottom - top)) * (high - low);
  const hint = document.createElement("div");
  hint.className = "hint";
  hint.textContent = `step ${Math.round(step)}: ${shortNumber(value)}`;
  picture.parentElement.append(hint);
}

document.addEventListener("pointermove", (event) => {
  const picture = event.target.closest?.("svg.hover");
  for (const other of document.querySelectorAll("svg.hover")) {
    if (other !== picture && other.querySelector(".cross")) clear(other);
  }
  if (picture) showValue(picture, event.clientX);
});

document.addEventListener("click", (event) => {
  if (event.target.closest?.("[data-theme-switch]")) {
    applyTheme(THEMES[(THEMES.indexOf(remembered()) + 1) % THEMES.length]);
  }
});

applyTheme(remembered());
