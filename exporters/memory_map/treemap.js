// RSS by its holders: the areas are d3's, each in proportion to its bytes; they sum to RSS, what nobody owns among them.

const HOLDER_COLOURS = {
  "Go heap": "in_use", "Go runtime": "runtime", "goroutine stacks": "stack", "C heap": "c", "thread stacks": "thread",
  executable: "file", "shared libraries": "file", "mapped files": "file", "shared memory": "file",
  "pages of the kernel": "thread", unknown: "unknown",
};
const HEAP_COLOURS = {
  "free and retained": "free", "scavenged, yet in RAM": "contradiction",
  "arenas beyond what the heap has grown into": "not_grown",
};
const HEAP_HOLES = new Set(["free slots", "span tails, behind the last slot", "dead objects, not swept yet"]);

function holderColour(path) {
  if (path[0] === "Go heap" && HEAP_COLOURS[path[1]]) return palette[HEAP_COLOURS[path[1]]];
  const colour = palette[HOLDER_COLOURS[path[0]] ?? "unknown"];
  return HEAP_HOLES.has(path[2]) ? mixed(palette.free, 0.55) : colour;
}

function holderTree() {
  const root = { name: "RSS", path: [], children: [] };
  for (const [path, resident, estimated] of content.holders) {
    let node = root;
    path.forEach((name, depth) => {
      let next = node.children.find((child) => child.name === name && !child.leaf);
      if (!next || depth === path.length - 1) {
        next = { name, path: path.slice(0, depth + 1), children: [] };
        if (depth === path.length - 1) Object.assign(next, { leaf: true, resident, estimated });
        node.children.push(next);
      }
      node = next;
    });
  }
  return root;
}

function drawTreemap() {
  const place = document.getElementById("tree");
  const width = Math.max(place.clientWidth, 200);
  const height = width < 600 ? 460 : 380;
  const root = d3.hierarchy(holderTree(), (node) => (node.leaf ? null : node.children)).sum((node) => node.resident ?? 0);
  root.sort((one, other) => other.value - one.value);
  d3.treemap().size([width, height]).tile(d3.treemapSquarify)(root);
  const svg = d3.create("svg").attr("viewBox", `0 0 ${width} ${height}`).attr("height", height).attr("role", "img")
    .attr("aria-label", `RSS ${size(root.value)} by its holders`);
  const told = document.getElementById("tree-told");
  for (const leaf of root.leaves()) {
    const colour = holderColour(leaf.data.path);
    const group = svg.append("g").datum(leaf);
    const [w, h] = [leaf.x1 - leaf.x0, leaf.y1 - leaf.y0];
    group.append("rect").attr("class", "leaf").attr("x", leaf.x0).attr("y", leaf.y0).attr("width", w).attr("height", h)
      .attr("fill", css(colour));
    group.append("title").text(holderWords(leaf.data, root.value));
    group.on("mouseenter click", () => (told.textContent = holderWords(leaf.data, root.value)));
    if (w > 46 && h > 18) labels(group, leaf, w, h, inkOn(colour));
  }
  svg.selectAll(null).data(root.children ?? []).join("rect").attr("class", "group").attr("x", (node) => node.x0)
    .attr("y", (node) => node.y0).attr("width", (node) => node.x1 - node.x0).attr("height", (node) => node.y1 - node.y0)
    .attr("pointer-events", "none");
  place.replaceChildren(svg.node());
  document.getElementById("tree-sum").textContent = size(root.value);
}

function labels(group, leaf, w, h, ink) {
  const whole = leaf.data.path[leaf.data.path.length - 1];
  const name = whole.slice(whole.lastIndexOf("/") + 1); // a function without the path of its package
  const lines = h > 34 ? [name, size(leaf.value)] : [`${name} ${size(leaf.value)}`];
  lines.forEach((line, at) => {
    const most = Math.floor((w - 8) / 6.6);
    const text = line.length > most ? line.slice(0, Math.max(0, most - 1)) + "…" : line;
    group.append("text").attr("x", leaf.x0 + 5).attr("y", leaf.y0 + 14 + 15 * at).attr("fill", ink).text(text);
  });
}

function holderWords(node, whole) {
  const basis = node.estimated ? ", by counts of slots" : "";
  return `${node.path.join(" › ")}: ${size(node.resident)}, ${percent(node.resident, whole)} of RSS${basis}`;
}

function fillHolders() {
  const rows = content.holders.map(([path, resident]) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = path.join(" › ");
    const amount = document.createElement("td");
    amount.textContent = size(resident);
    row.append(name, amount);
    return row;
  });
  document.querySelector("#holders tbody").replaceChildren(...rows);
}
