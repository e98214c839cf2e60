// Colours: the hue is the runtime's state, the strength is residency. All come from the style, for both themes.

const USES = ["in_use", "stack", "work_buf", "free", "scavenged", "not_grown"];
const USE_WORDS = {
  in_use: "in use", stack: "goroutine stack", work_buf: "work buffer", free: "free, retained", scavenged: "scavenged",
  not_grown: "not grown into", contradiction: "contradiction", runtime: "Go runtime's own", c: "C heap", file: "files",
  thread: "thread stacks", unknown: "no known owner",
};
const KIND_COLOURS = {
  heap_arena: "in_use", heap_metadata: "runtime", page_summary: "runtime", runtime_other: "runtime",
  thread_stack: "thread", c_heap: "c", binary: "file", shared_library: "file", file: "file", vdso: "thread",
  other: "unknown", other_runtime: "runtime",
};
const RESIDENT = 24;
const SWAPPED = 96;
const HUGE = 128;
const PALE = 0.24;
const palette = {};

function readColours() {
  const probe = document.createElement("canvas").getContext("2d");
  const style = getComputedStyle(document.documentElement);
  for (const name of [...USES, "contradiction", "runtime", "c", "file", "thread", "unknown", "reserved", "prepared", "ready", "ground", "card", "ink", "soft", "line", "focus"]) {
    probe.fillStyle = style.getPropertyValue(`--${name}`).trim();
    const code = parseInt(probe.fillStyle.slice(1), 16);
    palette[name] = [code >> 16, (code >> 8) & 255, code & 255];
  }
}

function mixed(colour, share, ground = palette.card) {
  return colour.map((part, at) => Math.round(ground[at] + (part - ground[at]) * share));
}

function css(colour) {
  return `rgb(${colour[0]}, ${colour[1]}, ${colour[2]})`;
}

// A page that the runtime has given back or never used, and is in RAM; one that holds something, and is in swap.
function isContradiction(page) {
  const use = page & 7;
  return use >= 4 ? (page & RESIDENT) !== 0 : use < 3 && (page & SWAPPED) !== 0;
}

function halves(page, mask) {
  const bits = page & mask;
  return bits === 0 ? 0 : bits === mask ? 2 : 1;
}

// The colour of each of the 256 kinds of pages. Where nobody told what is in RAM, all are of one strength.
function pageColours(residencyKnown) {
  const colours = [];
  for (let page = 0; page < 256; page++) {
    const use = Math.min(page & 7, 5);
    const name = isContradiction(page) ? "contradiction" : USES[use];
    const resident = residencyKnown ? halves(page, RESIDENT) / 2 : 0.5;
    const least = use === 5 ? 0.1 : PALE;
    colours.push(mixed(palette[name], name === "contradiction" ? 1 : least + (1 - least) * resident));
  }
  return colours;
}

// Black or white, whichever is better to read on a colour.
function inkOn([red, green, blue]) {
  const light = [red, green, blue].map((part) => {
    const share = part / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] > 0.179 ? "#000000" : "#ffffff";
}
