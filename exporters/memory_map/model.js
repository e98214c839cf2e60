// A map that can be asked: what is at a page, which span that is of, and what all of it sums to.

class MemoryMap {
  constructor(told, columns) {
    Object.assign(this, columns);
    this.told = told;
    this.names = told.names;
    this.types = told.types;
    this.residencyKnown = told.page_residency;
    this.areas = this.area_gap.length;
    this.arenas = this.arena_base.length;
    this.area_start = this._starts();
    this.arena_first = new Uint32Array(this.arenas + 1);
    this.shown = 0; // arenas whose pages are told
    for (let at = 0; at < this.arenas; at++) {
      const next = this.arena_first[at] + this.arena_size[at] / PAGE;
      this.arena_first[at + 1] = next;
      if (next <= this.pages.length) this.shown = at + 1;
    }
    this.spans = this.span_step.length;
    this.span_first = new Uint32Array(this.spans);
    for (let at = 0, first = 0; at < this.spans; at++) this.span_first[at] = first += this.span_step[at];
  }

  _starts() {
    const starts = new Float64Array(this.areas);
    for (let at = 0, end = 0; at < this.areas; at++) {
      starts[at] = end + this.area_gap[at];
      end = starts[at] + this.area_size[at];
    }
    return starts;
  }

  arenaOf(page) {
    return lastUpTo(this.arena_first, page, this.arenas);
  }

  // The address of a heap page.
  addressOf(page) {
    const arena = this.arenaOf(page);
    return this.arena_base[arena] + PAGE * (page - this.arena_first[arena]);
  }

  // How many pages of an arena there are up to the last one that has been grown into, or is in RAM.
  grownPages(arena) {
    const first = this.arena_first[arena];
    let end = this.arena_first[arena + 1];
    while (end > first && this.pages[end - 1] === 5) end--;
    return end - first;
  }

  // Whether a slot holds an object; null where only their number is known.
  isUsed(span, slot) {
    const [objects, capacity] = [this.span_objects[span], this.span_capacity[span]];
    if (objects === 0 || objects >= capacity) return objects > 0;
    if (!this.span_slots[span]) return null;
    if (!this._slot_first) {
      this._slot_first = new Uint32Array(this.spans);
      for (let at = 0, first = 0; at < this.spans; at++) {
        this._slot_first[at] = first;
        if (this.span_slots[at]) first += Math.ceil(this.span_capacity[at] / 8);
      }
    }
    return ((this.slots[this._slot_first[span] + (slot >> 3)] >> (slot & 7)) & 1) === 1;
  }

  // Which span holds a page; -1 for none.
  spanAt(page) {
    const at = lastUpTo(this.span_first, page, this.spans);
    return at >= 0 && page < this.span_first[at] + this.span_pages[at] ? at : -1;
  }

  // Bytes by state and what of them is in RAM or in swap, of some pages.
  sums(from, to) {
    const counts = new Float64Array(256);
    for (let at = from; at < to; at++) counts[this.pages[at]]++;
    const found = USES.map((name) => ({ name, bytes: 0, resident: 0, swapped: 0, huge: 0 }));
    counts.forEach((count, page) => {
      const row = found[Math.min(page & 7, 5)];
      row.bytes += count * PAGE;
      row.resident += (count * PAGE * halves(page, RESIDENT)) / 2;
      row.swapped += (count * PAGE * halves(page, SWAPPED)) / 2;
      if (page & HUGE) row.huge += count * PAGE;
    });
    return found;
  }

  // What the JSON report sums up, by its own names; of all that is in the map.
  totals() {
    const rows = this.sums(0, this.pages.length);
    const kinds = {};
    const add = (kind, resident, swap, virtual) => {
      const row = (kinds[kind] ??= { resident: 0, swap: 0, virtual: 0 });
      row.resident += resident;
      row.swap += swap;
      row.virtual += virtual;
    };
    for (let at = 0; at < this.areas; at++) {
      add(content.kinds[this.area_kind[at]], this.area_resident[at], this.area_swap[at], this.area_size[at]);
    }
    for (let at = 0; at < this.arenas; at++) {
      add("heap_arena", this.arena_resident[at], this.arena_swap[at], this.arena_size[at]);
    }
    const classes = {};
    for (let at = 0; at < this.spans; at++) {
      if (this.span_manual[at]) continue;
      const row = (classes[this.span_class[at]] ??= { spans: 0, pages: 0, objects: 0, capacity: 0 });
      row.spans++;
      row.pages += this.span_pages[at];
      row.objects += this.span_objects[at];
      row.capacity += this.span_capacity[at];
    }
    return { pages: rows, kinds, classes, resident: Object.values(kinds).reduce((sum, row) => sum + row.resident, 0) };
  }

  // Of each page how much of it holds nothing, 0 to 255: free pages, and free slots of spans.
  holes() {
    if (this._holes) return this._holes;
    const found = new Uint8Array(this.pages.length);
    for (let at = 0; at < found.length; at++) if ((this.pages[at] & 7) === 3) found[at] = 255;
    for (let at = 0; at < this.spans; at++) {
      if (this.span_manual[at] || !this.span_capacity[at]) continue;
      const share = (this.span_capacity[at] - this.span_objects[at]) / this.span_capacity[at];
      const first = this.span_first[at];
      if (share > 0) found.fill(Math.max(1, Math.round(255 * share)), first, first + this.span_pages[at]);
    }
    return (this._holes = found);
  }

  // The spans for which `test(at)` holds: how many, their bytes, and a mark on each of their pages.
  marked(test) {
    const marks = new Uint8Array(this.pages.length);
    let spans = 0;
    let pages = 0;
    let first = -1;
    for (let at = 0; at < this.spans; at++) {
      if (!test(at)) continue;
      if (first < 0) first = at;
      spans++;
      pages += this.span_pages[at];
      marks.fill(1, this.span_first[at], this.span_first[at] + this.span_pages[at]);
    }
    return { marks, spans, bytes: pages * PAGE, first };
  }
}

// The index of the last of `count` ascending numbers that is not above `value`; -1 if all are.
function lastUpTo(numbers, value, count) {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

const SIZE_CLASSES = new Map((report.spans ?? []).map((row) => [row.span_class, row]));

function className(map, span) {
  if (map.span_manual[span]) return "managed by hand";
  const spanClass = map.span_class[span];
  return spanClass >> 1 === 0 ? "large object" : `size class ${spanClass >> 1}`;
}

function spanWords(map, span) {
  const bytes = map.span_pages[span] * PAGE;
  if (map.span_manual[span]) return `a span of ${plural(map.span_pages[span], "page")} managed by hand`;
  const noscan = map.span_class[span] & 1 ? "without pointers" : "with pointers";
  const type = map.types[map.span_type[span]];
  const object = map.span_object_size[span];
  if (map.span_class[span] >> 1 === 0) {
    return `a large object of ${size(bytes)}, ${noscan}${type ? `, ${type}` : ""}`;
  }
  const [objects, capacity] = [map.span_objects[span], map.span_capacity[span]];
  const holes = (capacity - objects) * object;
  return (
    `span of ${className(map, span)} (${size(object)}, ${noscan}), ${size(bytes)}: ${number(objects)} of ` +
    `${plural(capacity, "slot")} hold objects (${percent(objects, capacity)}), ${size(holes)} free, ` +
    `${size(bytes - capacity * object)} behind the last slot`
  );
}

function residencyWords(map, page) {
  const byte = map.pages[page];
  if (!map.residencyKnown) return "nobody told whether it is in RAM";
  const words = [["not in RAM", "half of it in RAM", "in RAM"][halves(byte, RESIDENT)]];
  const swapped = halves(byte, SWAPPED);
  if (swapped) words.push(swapped === 2 ? "swapped out" : "half of it swapped out");
  if (byte & HUGE) words.push("on a huge page");
  return words.join(", ");
}

// The last event of the report that an address is in; "" where none was watched.
function eventAt(at) {
  const log = report.event_log ?? [];
  for (let index = log.length - 1; index >= 0; index--) {
    const event = log[index];
    if (event.address === null || !event.bytes) continue;
    if (event.address <= at && at < event.address + event.bytes) {
      const caller = event.function ?? event.callers[0];
      return `Last event: ${event.event} of ${size(event.bytes)} at ${event.seconds.toFixed(3)} s${caller ? ` by ${caller}` : ""}.`;
    }
  }
  return "";
}

function pageWords(map, page) {
  const byte = map.pages[page];
  const span = map.spanAt(page);
  const at = map.addressOf(page);
  const kind = USE_WORDS[USES[Math.min(byte & 7, 5)]];
  const words = [`${address(at)}: ${kind}, ${residencyWords(map, page)}.`];
  if (isContradiction(byte)) {
    words.push((byte & 7) >= 4 ? "The runtime does not need it, yet it takes RAM." : "It holds something, yet it is in swap.");
  }
  if (span >= 0) words.push(`In ${spanWords(map, span)}.`);
  return [...words, eventAt(at)].filter(Boolean).join(" ");
}

function areaWords(map, area) {
  const access = [..."rwxs"].map((letter, bit) => (map.area_access[area] & (1 << bit) ? letter : "-")).join("");
  const states = ["", "Reserved", "Prepared", "Ready"];
  const kind = content.kinds[map.area_kind[area]].replaceAll("_", " ");
  const bytes = map.area_size[area];
  const words = [
    `${address(map.area_start[area])} to ${address(map.area_start[area] + map.area_size[area])}: ${kind}`,
    map.names[map.area_name[area]], access, states[map.area_state[area]], size(bytes),
    `${size(map.area_resident[area])} in RAM`,
  ];
  if (map.area_swap[area]) words.push(`${size(map.area_swap[area])} swapped out`);
  if (map.area_huge[area]) words.push(`${size(map.area_huge[area])} on huge pages`);
  return words.filter(Boolean).join(", ") + ". " + eventAt(map.area_start[area]);
}

function arenaWords(map, arena) {
  const rows = arena < map.shown ? map.sums(map.arena_first[arena], map.arena_first[arena + 1]) : [];
  const parts = rows.filter((row) => row.bytes).map((row) => `${USE_WORDS[row.name]} ${size(row.bytes)}`);
  return (
    `Arena ${address(map.arena_base[arena])}, ${size(map.arena_size[arena])}, ` +
    `${size(map.arena_resident[arena])} in RAM${parts.length ? `: ${parts.join(", ")}` : ""}.`
  );
}
