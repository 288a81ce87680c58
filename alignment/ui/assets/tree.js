// Builds elements from the trees that the server sends: [tag, attributes, child, ...]. Text becomes text nodes and
// attributes that could run code are left out, so nothing in a file of a run is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
const KEPT = new Set(["open"]); // set by the user, not by the server

function allowed(name, value) {
  if (name.startsWith("on") || name === "style" || name === "src" || name === "srcdoc") return false;
  return name !== "href" || value.startsWith("#");
}

function create(tree, namespace) {
  if (typeof tree === "string") return document.createTextNode(tree);
  const [tag, attributes, ...children] = tree;
  const space = tag === "svg" ? SVG : namespace;
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (allowed(name, value)) node.setAttribute(name, value);
  node.append(...children.map((child) => create(child, space)));
  return node;
}

function sameKind(node, tree) {
  if (typeof tree === "string") return node.nodeType === Node.TEXT_NODE;
  return node.nodeType === Node.ELEMENT_NODE && node.localName === tree[0];
}

function change(node, tree) {
  if (typeof tree === "string") {
    if (node.data !== tree) node.data = tree;
    return;
  }
  const [, attributes, ...children] = tree;
  for (const { name } of [...node.attributes]) if (!(name in attributes) && !KEPT.has(name)) node.removeAttribute(name);
  for (const [name, value] of Object.entries(attributes)) {
    if (allowed(name, value) && node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  update(node, children);
}

// Makes the children of a node equal to the trees. Nodes that stay keep the focus, the scroll position, and what the
// reader has unfolded.
export function update(parent, trees) {
  const nodes = [...parent.childNodes];
  const space = parent.namespaceURI === SVG ? SVG : null;
  trees.forEach((tree, index) => {
    const node = nodes[index];
    if (node === undefined) parent.append(create(tree, space));
    else if (sameKind(node, tree)) change(node, tree);
    else node.replaceWith(create(tree, space));
  });
  for (const node of nodes.slice(trees.length)) node.remove();
}

// The same form for trees that the page makes itself.
export function h(tag, attributes = {}, ...children) {
  const given = Object.entries(attributes).filter(([, value]) => value !== false && value !== null && value !== undefined);
  const texts = given.map(([name, value]) => [name, value === true ? "" : String(value)]);
  const parts = children.filter((child) => child !== null && child !== undefined && child !== false);
  return [tag, Object.fromEntries(texts), ...parts.map((child) => (Array.isArray(child) ? child : String(child)))];
}
