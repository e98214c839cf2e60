// The page: puts its parts together, and listens to the person.

let view = null;
let timeline = null;
let moments = null;

function fillLegend() {
  const shown = [...USES, "contradiction", "runtime", "c", "file", "thread", "unknown"];
  const items = shown.map((name) => {
    const item = document.createElement("li");
    const mark = document.createElement("i");
    mark.className = name;
    item.append(mark, USE_WORDS[name]);
    return item;
  });
  document.getElementById("legend").replaceChildren(...items);
}

// What is searched for: { address } or { test, words }; null for nothing.
function understood(text, map) {
  const word = text.trim().toLowerCase();
  if (!word) return null;
  if (/^0x[0-9a-f]{1,15}$/.test(word) || /^[0-9a-f]{8,15}$/.test(word)) {
    return { address: Number(word.startsWith("0x") ? word : `0x${word}`) };
  }
  const spanClass = /^(?:size )?class (\d+)$/.exec(word);
  if (spanClass) return { test: (at) => !map.span_manual[at] && map.span_class[at] >> 1 === Number(spanClass[1]) };
  if (/^large( objects?)?$/.test(word)) return { test: (at) => !map.span_manual[at] && map.span_class[at] >> 1 === 0 };
  const bytes = /^(\d+(?:\.\d+)?) ?(b|kib|kb|k|mib|mb|m)?$/.exec(word);
  if (bytes) {
    const wanted = Number(bytes[1]) * { b: 1, k: 1024, m: 1048576 }[(bytes[2] ?? "b")[0]];
    return { test: (at) => map.span_object_size[at] === wanted };
  }
  const types = new Set(map.types.map((type, at) => (at && type.toLowerCase().includes(word) ? at : -1)));
  const names = new Set(map.names.map((name, at) => (name.toLowerCase().includes(word) ? at : -1)));
  return { test: (at) => types.has(map.span_type[at]), names };
}

function search(onward) {
  const found = document.getElementById("found");
  const { map } = view;
  const wanted = understood(document.getElementById("search").value, map);
  view.marks = null;
  if (wanted === null) {
    found.textContent = "";
  } else if (wanted.address !== undefined) {
    found.textContent = view.goTo(wanted.address) ? "" : "nothing is mapped there";
  } else {
    const marked = map.marked(wanted.test);
    const areas = [];
    if (wanted.names) for (let at = 0; at < map.areas; at++) if (wanted.names.has(map.area_name[at])) areas.push(at);
    const words = [];
    if (marked.spans || !areas.length) words.push(`${plural(marked.spans, "span")}, ${size(marked.bytes)}`);
    if (areas.length) {
      const resident = areas.reduce((sum, at) => sum + map.area_resident[at], 0);
      words.push(`${plural(areas.length, "area")}, ${size(resident)} in RAM`);
    }
    found.textContent = words.join("; ");
    if (marked.spans) view.marks = marked.marks;
    if (onward && marked.spans) showNext(marked, wanted.test);
    else if (onward && areas.length) view.goTo(map.area_start[areas[0]]);
  }
  view.draw();
}

// Go to the next span that was found, behind where one is.
function showNext(marked, test) {
  const { map, cursor } = view;
  let from = cursor?.kind === "page" ? map.spanAt(cursor.at) + 1 : 0;
  for (; from < map.spans; from++) if (test(from)) break;
  view.goTo(map.addressOf(map.span_first[from < map.spans ? from : marked.first]));
}

function listen() {
  const box = document.getElementById("search");
  box.addEventListener("input", () => search(false));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter") search(true);
    if (event.key === "Escape") {
      box.value = "";
      search(false);
    }
  });
  document.getElementById("filter").addEventListener("change", (event) => {
    view.filter = event.target.value;
    view.draw();
  });
  for (const button of document.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => {
      view.goTo(Number(button.dataset.go));
      document.getElementById("map-title").scrollIntoView();
      view.canvas.focus({ preventScroll: true });
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || ["INPUT", "SELECT"].includes(document.activeElement.tagName)) return;
    event.preventDefault();
    box.focus();
    box.select();
  });
}

function redraw() {
  readColours();
  drawTreemap();
  timeline?.draw();
  view?.draw();
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([document.getElementById("report").textContent], { type: "application/json" }));
  link.download = "report.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function begin() {
  document.getElementById("save").addEventListener("click", save);
  if (!content.maps.length) return;
  readColours();
  fillLegend();
  fillHolders();
  drawTreemap();
  const last = content.maps.length - 1;
  view = new MapView(new MemoryMap(content.maps[last], await columnsOf(last)));
  if (document.getElementById("course")) {
    timeline = new Timeline(document.getElementById("course"), (at) => moments.go(at));
  }
  moments = new Moments(view, timeline);
  listen();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  const closed = [...document.querySelectorAll("details.finding:not([open])")];
  for (const event of ["beforeprint", "afterprint"]) {
    window.addEventListener(event, () => {
      for (const finding of closed) finding.open = event === "beforeprint";
      redraw();
    });
  }
  let width = document.getElementById("tree").clientWidth;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    drawTreemap();
    timeline?.draw();
  }).observe(document.getElementById("tree"));
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

begin();
