// The table of all processes: sorted and filtered here, with the figures that the server tells now and then.

const table = place("processes");
const body = table.tBodies[0];
const heads = [...table.querySelectorAll("[data-column]")];
const SVG = "http://www.w3.org/2000/svg";
const BAR = 10000; // the width of a bar in its own units
const rowsByPid = new Map();
let told = null;
let wish = { sort: table.dataset.sort, filter: place("filter").value };

const WRITE = {
  bytes: size,
  share: (value) => (value === null || value === undefined ? "-" : percent(value, 1)),
  rate: (value) => (value === null || value === undefined ? "?" : threeDigits(value)),
  slope: (value) => (value === null || value === undefined ? "?" : `${value > 0 ? "+" : ""}${size(value)}/h`),
};

function valueOf(row, column) {
  return column === "name" ? row.name.toLowerCase() : row.figures[column] ?? null;
}

function order(one, other) {
  return one < other ? -1 : one > other ? 1 : 0;
}

// The rows that have all words, in the order of a column; what is not known comes last.
function chosen() {
  const words = wish.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const column = wish.sort.replace("-", "");
  const down = wish.sort.startsWith("-") ? -1 : 1;
  const found = told.rows.filter((row) => words.every((word) => row.search.includes(word)));
  return found.sort((one, other) => {
    const [a, b] = [valueOf(one, column), valueOf(other, column)];
    if (a === null || b === null) return (a === null) - (b === null) || one.pid - other.pid;
    return down * order(a, b) || one.pid - other.pid;
  });
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function drawing(className, viewBox) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("viewBox", viewBox);
  svg.setAttribute("preserveAspectRatio", "none");
  return svg;
}

// What a row is made of, once for each process; later only what is in it changes.
function newRow(pid) {
  const row = element("tr");
  row.id = `p${pid}`;
  const head = element("th");
  head.scope = "row";
  const ram = element("td", "ram");
  ram.dataset.title = "RAM";
  const cells = heads.slice(1).map((column) => {
    const cell = element("td");
    cell.dataset.title = column.textContent;
    return cell;
  });
  const hour = element("td", "hour");
  hour.dataset.title = "last hour";
  const spark = drawing("spark", `0 0 ${told.sparks} 1`);
  spark.setAttribute("aria-hidden", "true");
  spark.append(document.createElementNS(SVG, "path"));
  hour.append(spark);
  row.append(head, ram, ...cells, hour);
  return { row, head, ram, cells, spark: spark.firstChild };
}

function fill(made, row) {
  const link = element("a", "", row.name);
  link.href = `/targets/${row.pid}`;
  const parts = [link, " ", element("span", "pid", row.pid)];
  if (row.tone !== "good") parts.push(" ", element("span", `state ${row.tone}`, row.state));
  if (row.place) parts.push(" ", element("span", "place", row.place));
  const said = element("span", `said ${row.said_tone}`, row.said);
  said.title = row.said;
  parts.push(said);
  const fresh = element("th");
  fresh.scope = "row";
  fresh.append(...parts);
  become(made.head, fresh);
  const ram = element("td", "ram");
  ram.dataset.title = "RAM";
  if (row.parts.length) ram.append(barOf(row.parts));
  become(made.ram, ram);
  made.cells.forEach((cell, at) => {
    const column = heads[at + 1].dataset;
    write(cell, WRITE[column.unit](row.figures[column.column] ?? null));
  });
  made.spark.setAttribute("d", sparkOf(row.spark));
}

function barOf(parts) {
  const bar = drawing("bar", `0 0 ${BAR} 1`);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", parts.map(([, name, bytes]) => `${name} ${size(bytes)}`).join(", "));
  let x = 0;
  for (const [colour, , bytes] of parts) {
    const rect = document.createElementNS(SVG, "rect");
    const [at, width] = [x, bytes].map((count) => ((BAR * count) / told.scale).toFixed(1));
    for (const [name, value] of Object.entries({ class: colour, x: at, y: 0, width, height: 1 })) rect.setAttribute(name, value);
    bar.append(rect);
    x += bytes;
  }
  return bar;
}

function sparkOf(values) {
  const most = Math.max(1, ...values);
  let path = "";
  let on = false;
  values.forEach((value, at) => {
    if (value !== null) path += `${on ? "L" : "M"}${at + 0.5},${(1 - value / most).toFixed(3)}${on ? "" : "h0"}`;
    on = value !== null;
  });
  return path;
}

function sums(rows) {
  for (const sum of document.querySelectorAll("[data-sum]")) {
    const known = rows.map((row) => row.figures[sum.dataset.sum]).filter(Number.isInteger);
    const whole = known.length ? known.reduce((all, one) => all + one, 0) : null;
    sum.setAttribute("value", whole ?? "");
    write(sum, size(whole));
  }
  write(place("shown"), rows.length === told.rows.length ? number(rows.length) : `${number(rows.length)} of ${number(told.rows.length)}`);
}

function show() {
  if (!told) return;
  const rows = chosen();
  const all = new Set(told.rows.map((row) => row.pid));
  for (const pid of rowsByPid.keys()) if (!all.has(pid)) rowsByPid.delete(pid);
  const wanted = rows.map((row) => {
    const made = rowsByPid.get(row.pid) ?? newRow(row.pid);
    rowsByPid.set(row.pid, made);
    fill(made, row);
    return made.row;
  });
  if (wanted.length !== body.rows.length || wanted.some((row, at) => body.rows[at] !== row)) {
    const focused = document.activeElement;
    body.replaceChildren(...wanted);
    if (body.contains(focused)) focused.focus({ preventScroll: true });
  }
  place("none").hidden = rows.length > 0;
  write(place("none"), told.rows.length ? "No process has these words." : "No Go process was found so far.");
  sums(rows);
}

function query(sort) {
  const asked = new URLSearchParams({ sort });
  if (wish.filter) asked.set("filter", wish.filter);
  return `?${asked}`;
}

// What a click on the head of a column asks for.
function sortBy(head) {
  const { column, unit } = head.dataset;
  if (wish.sort.replace("-", "") === column) return wish.sort.startsWith("-") ? column : `-${column}`;
  return unit === "text" ? column : `-${column}`;
}

function changed() {
  for (const head of heads) {
    if (wish.sort.replace("-", "") === head.dataset.column) head.setAttribute("aria-sort", wish.sort.startsWith("-") ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
    head.querySelector("a").setAttribute("href", `/${query(sortBy(head))}`);
  }
  place("sort").value = wish.sort;
  history.replaceState(null, "", query(wish.sort));
  show();
}

function take(fresh) {
  const first = told === null;
  told = fresh;
  if (first) body.replaceChildren();
  write(place("summary"), told.summary);
  write(place("own"), told.own);
  place("left-out").hidden = !told.left_out;
  write(place("left-out"), `and ${number(told.left_out)} more, which /metrics has`);
  show();
}

for (const head of heads) {
  head.querySelector("a").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    wish = { ...wish, sort: sortBy(head) };
    changed();
  });
}
place("apply").hidden = true;
place("filter").form.addEventListener("submit", (event) => event.preventDefault());
place("filter").addEventListener("input", () => {
  wish = { ...wish, filter: place("filter").value };
  changed();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || document.activeElement === place("filter") || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  place("filter").focus();
  place("filter").select();
});
new Refresh(Number(table.dataset.refresh), [{ address: "/targets.json", take }]);
