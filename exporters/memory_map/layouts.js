// Where things are on the canvas: one layout for each depth of the map. A layout knows boxes, and draws nothing.
// An item is { kind: "arena" | "area" | "gap" | "page" | "slot", at, ... }; `box` says where it is.

const TILE = 128; // pages in a row of an arena's small picture
const BLOCK = 26; // px, the height of what is mapped outside the heap
const SPACING = 6;
const MOST_BLOCKS = 500;
const LABEL = 20;

// The whole address space, in order of address: gaps folded, arenas as small pictures, the rest as blocks.
class SpaceLayout {
  constructor(map, width) {
    this.items = [];
    this.labels = [];
    this.width = width;
    let y = 0;
    for (const run of runsOf(map)) y = run.arenas ? this._arenas(map, run, y) : this._blocks(map, run.blocks, y);
    this.height = Math.max(y, BLOCK);
  }

  _arenas(map, { from, to }, top) {
    const count = to - from;
    let bytes = 0;
    let resident = 0;
    for (let at = from; at < to; at++) {
      bytes += map.arena_size[at];
      resident += map.arena_resident[at];
    }
    const folded = this._rows(map, from, to) < map.arena_size[from] / PAGE / TILE ? "; where none has been grown into is folded" : "";
    const told = `Go heap: ${plural(count, "arena")} from ${address(map.arena_base[from])}, ${size(bytes)}, ${size(resident)} in RAM${folded}`;
    this.labels.push({ x: 0, y: top, text: told });
    top += LABEL;
    const rows = this._rows(map, from, to);
    const { each, scale } = this._tiles(count, rows);
    const [w, h] = [TILE * scale, rows * scale];
    for (let at = from; at < to; at++) {
      const nth = at - from;
      const x = (nth % each) * (w + SPACING);
      const y = top + Math.floor(nth / each) * (h + SPACING);
      this.items.push({ kind: "arena", at, x, y, w, h, rows });
    }
    return top + Math.ceil(count / each) * (h + SPACING) + SPACING;
  }

  // How many rows of pages the pictures have: those behind have not been grown into in any of these arenas.
  _rows(map, from, to) {
    let pages = 1;
    for (let at = from; at < to; at++) pages = Math.max(pages, at < map.shown ? map.grownPages(at) : map.arena_size[at] / PAGE);
    return Math.min(Math.ceil(pages / TILE) + 1, Math.ceil(map.arena_size[from] / PAGE / TILE));
  }

  // How many arenas stand in a row, and how large a page is: as large as all can be seen at a time, if that is enough.
  _tiles(count, rows) {
    let found = null;
    for (let each = 1; each <= Math.max(count, 1) + 1; each++) {
      const room = (this.width - (each - 1) * SPACING) / each / TILE;
      const scale = room >= 1 ? Math.min(9, Math.floor(2 * room) / 2) : room;
      if (scale < 0.125) break;
      found = { each, scale };
      const height = Math.ceil(count / each) * (rows * scale + SPACING);
      if (height <= (scale >= 2 ? 420 : 1400)) break;
    }
    return found ?? { each: 1, scale: 0.125 };
  }

  _blocks(map, blocks, top) {
    let [x, y] = [0, top];
    for (const block of blocks) {
      const w = block.kind === "gap" ? 18 : Math.min(10 + 10 * Math.log2(1 + block.bytes / 65536), this.width);
      if (x > 0 && x + w > this.width) {
        x = 0;
        y += BLOCK + SPACING;
      }
      this.items.push({ ...block, x, y, w, h: BLOCK });
      x += w + 2;
    }
    return y + BLOCK + 2 * SPACING;
  }

  box(item) {
    return item;
  }

  pick(x, y) {
    return this.items.find((item) => x >= item.x && x < item.x + item.w && y >= item.y && y < item.y + item.h) ?? null;
  }

  first() {
    return this.items.find((item) => item.kind === "arena") ?? this.items[0] ?? null;
  }

  same(item, other) {
    return this.items.find((one) => one.kind === item.kind && one.at === item.at) === other;
  }

  next(item, right, down) {
    const at = this.items.indexOf(item);
    if (right) return this.items[at + right] ?? item;
    const middle = item.x + item.w / 2;
    const far = (one) => Math.abs(one.y - item.y) * 10000 + Math.abs(one.x + one.w / 2 - middle);
    const there = this.items.filter((one) => (down > 0 ? one.y > item.y : one.y < item.y));
    return there.reduce((best, one) => (best && far(best) <= far(one) ? best : one), null) ?? item;
  }
}

// What is mapped, in order of address: runs of arenas, and between them blocks of areas and folded gaps.
function runsOf(map) {
  const runs = [];
  let area = 0;
  for (let arena = 0; arena < map.arenas; ) {
    const from = area;
    while (area < map.areas && map.area_start[area] < map.arena_base[arena]) area++;
    if (area > from) runs.push({ from, to: area });
    const first = arena;
    const next = area < map.areas ? map.area_start[area] : Infinity;
    while (arena < map.arenas && map.arena_base[arena] < next) arena++;
    runs.push({ arenas: true, from: first, to: arena });
  }
  if (area < map.areas) runs.push({ from: area, to: map.areas });
  const step = Math.max(1, Math.ceil(map.areas / MOST_BLOCKS));
  for (const run of runs) if (!run.arenas) run.blocks = blocksOf(map, run, step);
  return runs;
}

function blocksOf(map, { from, to }, step) {
  const blocks = [];
  let end = null;
  for (let at = from; at < to; ) {
    const start = map.area_start[at];
    if (end !== null && start > end) blocks.push({ kind: "gap", at, bytes: start - end });
    let until = at + 1;
    if (step > 1) until = Math.min(at + step, to);
    else while (until < to && isSame(map, at, until)) until++;
    const block = { kind: "area", at, to: until, bytes: 0, resident: 0, colour: "unknown", state: map.area_state[at] };
    let most = -1;
    for (let one = at; one < until; one++) {
      block.bytes += map.area_size[one];
      block.resident += map.area_resident[one];
      const weight = map.area_resident[one] * 1e3 + map.area_size[one];
      if (weight > most) [most, block.colour] = [weight, KIND_COLOURS[content.kinds[map.area_kind[one]]] ?? "unknown"];
    }
    blocks.push(block);
    end = map.area_start[until - 1] + map.area_size[until - 1];
    at = until;
  }
  return blocks;
}

function isSame(map, at, next) {
  return (
    map.area_kind[at] === map.area_kind[next] && map.area_state[at] === map.area_state[next] &&
    map.area_name[at] === map.area_name[next] && map.area_start[next - 1] + map.area_size[next - 1] === map.area_start[next]
  );
}

// Pages in rows: of an arena, of a chunk of 4 MB, or of a span that has no slots.
class GridLayout {
  constructor(first, count, columns, width, tallest = 64) {
    this.firstPage = first;
    this.count = count;
    this.columns = columns;
    this.rows = Math.ceil(count / columns);
    const cell = Math.min(width / columns, tallest);
    this.detailed = cell >= 14;
    this.cell = this.detailed ? Math.floor(cell) : cell;
    this.width = width;
    this.height = this.rows * this.cell;
  }

  box({ at }) {
    const nth = at - this.firstPage;
    return {
      x: (nth % this.columns) * this.cell, y: Math.floor(nth / this.columns) * this.cell, w: this.cell, h: this.cell,
    };
  }

  pick(x, y) {
    const [column, row] = [Math.floor(x / this.cell), Math.floor(y / this.cell)];
    const nth = row * this.columns + column;
    if (column < 0 || column >= this.columns || row < 0 || nth >= this.count) return null;
    return { kind: "page", at: this.firstPage + nth };
  }

  first() {
    return { kind: "page", at: this.firstPage };
  }

  same(item, other) {
    return other !== null && item.at === other.at;
  }

  next({ at }, right, down) {
    const to = at + right + down * this.columns;
    const inside = to >= this.firstPage && to < this.firstPage + this.count;
    return { kind: "page", at: inside ? to : at };
  }
}

// The slots of a span.
class SlotLayout {
  constructor(map, span, width) {
    this.span = span;
    this.count = map.span_capacity[span];
    const cell = Math.floor(Math.sqrt((width * 360) / Math.max(1, this.count)));
    this.cell = Math.max(7, Math.min(64, cell));
    this.columns = Math.max(1, Math.floor(width / this.cell));
    this.rows = Math.ceil(this.count / this.columns);
    this.width = width;
    this.height = this.rows * this.cell;
  }

  box({ at }) {
    return {
      x: (at % this.columns) * this.cell, y: Math.floor(at / this.columns) * this.cell, w: this.cell, h: this.cell,
    };
  }

  pick(x, y) {
    const [column, row] = [Math.floor(x / this.cell), Math.floor(y / this.cell)];
    const at = row * this.columns + column;
    return column < 0 || column >= this.columns || row < 0 || at >= this.count ? null : { kind: "slot", at };
  }

  first() {
    return { kind: "slot", at: 0 };
  }

  same(item, other) {
    return other !== null && item.at === other.at;
  }

  next({ at }, right, down) {
    const to = at + right + down * this.columns;
    return { kind: "slot", at: to >= 0 && to < this.count ? to : at };
  }
}
