// The map as a person uses it: where one is, what is shown, and what is said of it.

const CHUNK = 512; // pages

class MapView {
  constructor(map) {
    this.map = map;
    this.canvas = document.getElementById("map");
    this.place = { level: "space" };
    this.filter = "all";
    this.marks = null;
    this.changes = null;
    this.cursor = null;
    this._listen();
    this.refresh();
  }

  // Show another map at the same place, as far as that is there; `changes`: since another moment.
  show(map, changes) {
    const { level, arena, chunk } = this.place;
    const base = arena === undefined ? null : this.map.arena_base[arena];
    const offset = chunk === undefined ? 0 : chunk - this.map.arena_first[arena];
    this.map = map;
    this.changes = changes;
    this.marks = null;
    this.cursor = null;
    const there = base === null ? -1 : map.arena_base.indexOf(base);
    if (there < 0 || there >= map.shown) this.place = { level: "space" };
    else if (level === "arena") this.place = { level, arena: there };
    else if (level !== "space") this.place = { level: "chunk", arena: there, chunk: map.arena_first[there] + offset };
    this.refresh();
  }

  _listen() {
    const { canvas } = this;
    canvas.addEventListener("mousemove", (event) => this._tell(this._at(event)));
    canvas.addEventListener("mouseleave", () => this._tell(this.hasFocus ? this.cursor : null));
    canvas.addEventListener("click", (event) => {
      const item = this._at(event);
      if (item) this.enter(item);
    });
    canvas.addEventListener("keydown", (event) => this._key(event));
    canvas.addEventListener("focus", () => {
      this.cursor ??= this.layout.first();
      this.draw();
      this._tell(this.cursor);
    });
    canvas.addEventListener("blur", () => this.draw());
    new ResizeObserver(() => {
      if (this._width() !== this.layout.width) this.refresh();
    }).observe(canvas.parentElement);
  }

  get hasFocus() {
    return document.activeElement === this.canvas;
  }

  _width() {
    const style = getComputedStyle(this.canvas.parentElement);
    return Math.floor(this.canvas.parentElement.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
  }

  _at(event) {
    const box = this.canvas.getBoundingClientRect();
    return this.layout.pick(event.clientX - box.left, event.clientY - box.top);
  }

  _key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (step) this.cursor = this.layout.next(this.cursor ?? this.layout.first(), ...step);
    else if (event.key === "Home") this.cursor = this.layout.first();
    else if (event.key === "Enter" || event.key === " ") return void (event.preventDefault(), this.cursor && this.enter(this.cursor));
    else if (event.key === "Escape" || event.key === "Backspace") return void (event.preventDefault(), this.leave());
    else return;
    event.preventDefault();
    this.draw();
    this._tell(this.cursor);
    this._reveal();
  }

  _reveal() {
    if (!this.cursor) return;
    const box = this.layout.box(this.cursor);
    const top = this.canvas.getBoundingClientRect().top;
    if (top + box.y < 0) window.scrollBy(0, top + box.y - 20);
    if (top + box.y + box.h > window.innerHeight) window.scrollBy(0, top + box.y + box.h - window.innerHeight + 20);
  }

  // Go one step deeper, to what is at an item.
  enter(item) {
    const { map } = this;
    if (item.kind === "arena" && item.at < map.shown) return this.go({ level: "arena", arena: item.at });
    if (item.kind === "page" && this.place.level === "arena") return this.go(this._chunkOf(item.at), item);
    if (item.kind === "page" && this.place.level === "chunk") {
      const span = map.spanAt(item.at);
      if (span >= 0) return this.go({ ...this.place, level: "span", span });
    }
    this.cursor = item;
    this.draw();
    this._tell(item);
  }

  _chunkOf(page) {
    const arena = this.map.arenaOf(page);
    const first = this.map.arena_first[arena];
    return { level: "chunk", arena, chunk: first + Math.floor((page - first) / CHUNK) * CHUNK };
  }

  leave() {
    const { level, arena, chunk, span } = this.place;
    if (level === "arena") {
      this.go({ level: "space" });
      this.cursor = this.layout.items.find((item) => item.kind === "arena" && item.at === arena) ?? null;
      this.draw();
    }
    if (level === "chunk") this.go({ level: "arena", arena }, { kind: "page", at: chunk });
    if (level === "span") this.go({ level: "chunk", arena, chunk }, { kind: "page", at: Math.max(chunk, this.map.span_first[span]) });
  }

  go(place, cursor = null) {
    this.place = place;
    this.cursor = null;
    this.refresh();
    this.cursor = cursor ?? (this.hasFocus ? this.layout.first() : null);
    this.draw();
    this._tell(cursor);
  }

  // Show what is at an address, as deep as it goes. Returns whether it is mapped.
  goTo(wanted) {
    const { map } = this;
    const arena = lastUpTo(map.arena_base, wanted, map.arenas);
    if (arena >= 0 && wanted < map.arena_base[arena] + map.arena_size[arena]) {
      if (arena >= map.shown) return false;
      const page = map.arena_first[arena] + Math.floor((wanted - map.arena_base[arena]) / PAGE);
      this.go(this._chunkOf(page), { kind: "page", at: page });
      return true;
    }
    const area = lastUpTo(map.area_start, wanted, map.areas);
    if (area < 0 || wanted >= map.area_start[area] + map.area_size[area]) return false;
    this.go({ level: "space" });
    this.cursor = this.layout.items.find((item) => item.kind === "area" && item.at <= area && area < item.to) ?? null;
    this.draw();
    this._say(areaWords(map, area));
    return true;
  }

  refresh() {
    const { map, place } = this;
    const width = Math.max(this._width(), 200);
    const wide = width >= 700;
    if (place.level === "space") this.layout = new SpaceLayout(map, width);
    if (place.level === "arena") {
      const first = map.arena_first[place.arena];
      this.layout = new GridLayout(first, map.arena_first[place.arena + 1] - first, wide ? 128 : 64, width);
    }
    if (place.level === "chunk") {
      const end = map.arena_first[place.arena + 1];
      this.layout = new GridLayout(place.chunk, Math.min(CHUNK, end - place.chunk), wide ? 32 : 16, width);
    }
    if (place.level === "span") this.layout = this._spanLayout(place.span, width);
    this._crumbs();
    this.draw();
    this._tell(this.hasFocus ? this.cursor : null);
  }

  _spanLayout(span, width) {
    const { map } = this;
    if (!map.span_manual[span] && map.span_capacity[span] > 1) return new SlotLayout(map, span, width);
    const pages = Math.min(map.span_pages[span], map.pages.length - map.span_first[span]);
    const columns = pages <= 16 ? Math.min(pages, width >= 700 ? 16 : 8) : pages <= 4096 ? (width >= 700 ? 64 : 32) : 128;
    return new GridLayout(map.span_first[span], pages, columns, width);
  }

  draw() {
    const { canvas, layout } = this;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const pad = 2;
    canvas.style.height = `${layout.height + 2 * pad}px`;
    canvas.width = Math.round(layout.width * ratio);
    canvas.height = Math.round((layout.height + 2 * pad) * ratio);
    const painter = new Painter(canvas, this.map, this.filter, this.marks, this.changes);
    painter.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (layout instanceof SpaceLayout) painter.space(layout);
    if (layout instanceof GridLayout) painter.grid(layout);
    if (layout instanceof SlotLayout) painter.slots(layout);
    if (this.cursor) painter.cursor(layout.box(this.cursor));
  }

  _crumbs() {
    const { map, place } = this;
    const steps = [["Address space", { level: "space" }]];
    if (place.arena !== undefined) steps.push([`Arena ${address(map.arena_base[place.arena])}`, { level: "arena", arena: place.arena }]);
    if (place.chunk !== undefined) steps.push([`Chunk ${address(map.addressOf(place.chunk))}`, { ...place, level: "chunk", span: undefined }]);
    if (place.span !== undefined) steps.push([`Span ${address(map.addressOf(map.span_first[place.span]))}`, place]);
    const buttons = steps.map(([text, to], at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      if (at === steps.length - 1) {
        button.disabled = true;
        button.setAttribute("aria-current", "location");
      } else button.addEventListener("click", () => this.go(to));
      return button;
    });
    document.getElementById("crumbs").replaceChildren(...buttons);
    this.canvas.setAttribute("aria-label", `Memory map: ${steps[steps.length - 1][0]}`);
  }

  _say(text) {
    const told = document.getElementById("told");
    if (told.textContent !== text) told.textContent = text;
  }

  _tell(item) {
    this._say(item ? this.words(item) : this.summary());
  }

  words(item) {
    const { map } = this;
    if (item.kind === "arena") return arenaWords(map, item.at);
    if (item.kind === "gap") return `Nothing is mapped in ${size(item.bytes)} here: folded.`;
    if (item.kind === "page") return pageWords(map, item.at);
    if (item.kind === "slot") return this._slotWords(item.at);
    if (item.to - item.at === 1) return areaWords(map, item.at);
    const first = areaWords(map, item.at);
    return `${plural(item.to - item.at, "area")}, ${size(item.bytes)}, ${size(item.resident)} in RAM. The first: ${first}`;
  }

  _slotWords(slot) {
    const { map } = this;
    const { span } = this.place;
    const offset = slot * map.span_object_size[span];
    const page = map.span_first[span] + Math.floor(offset / PAGE);
    const at = address(map.addressOf(map.span_first[span]) + offset);
    const used = map.isUsed(span, slot);
    const held = used === null ? "" : used ? "holds an object, " : "free, ";
    return `${at}: slot ${number(slot + 1)} of ${number(map.span_capacity[span])}, ${held}${residencyWords(map, page)}. ${this.summary()}`;
  }

  summary() {
    const { map, place } = this;
    if (place.level === "space") {
      const heap = map.arenas ? `${plural(map.arenas, "arena")} of Go heap and ` : "";
      const more = map.told.pages_left_out ? ` The pages of ${plural(map.arenas - map.shown, "arena")} are not told one by one: there are too many.` : "";
      return `${heap}${plural(map.areas, "other area")} of address space, in order of address; what is not mapped is folded.${more}`;
    }
    if (place.level === "arena") return arenaWords(map, place.arena);
    if (place.level === "chunk") {
      const end = Math.min(place.chunk + CHUNK, map.arena_first[place.arena + 1]);
      const rows = map.sums(place.chunk, end).filter((row) => row.bytes);
      const parts = rows.map((row) => `${USE_WORDS[row.name]} ${size(row.bytes)} (${size(row.resident)} in RAM)`);
      return `4 MiB chunk at ${address(map.addressOf(place.chunk))}: ${parts.join(", ")}.`;
    }
    const words = spanWords(map, place.span);
    const slots = this.layout instanceof SlotLayout && map.isUsed(place.span, 0) === null
      ? " Objects are drawn first: they are counted, but which slots they are in was not read, or has changed." : "";
    return `${address(map.addressOf(map.span_first[place.span]))}: ${words}.${slots}`;
  }
}
