// Drawing: a layout's boxes in the colours of what is there.

const FONT = '12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif';

// A function that gives the colour of a page under a filter: [red, green, blue], from a table that is made once.
function shadesOf(map, filter, marks, changes) {
  const colours = pageColours(map.residencyKnown);
  const dim = colours.map((colour) => mixed(colour, 0.12));
  if (changes) {
    const shades = [mixed(palette.scavenged, 0.12), palette.contradiction, palette.in_use, palette.free];
    return (byte, page) => shades[changes.codes[page]];
  }
  if (marks) return (byte, page) => (marks[page] ? colours : dim)[byte];
  if (filter === "resident") return (byte) => (byte & RESIDENT || isContradiction(byte) ? colours : dim)[byte];
  if (filter === "holes") {
    const holes = map.holes();
    const shades = [[], []];
    for (let share = 0; share < 256; share++) {
      shades[0].push(mixed(palette.free, share ? 0.06 + (0.3 * share) / 255 : 0));
      shades[1].push(mixed(palette.free, share ? 0.12 + (0.88 * share) / 255 : 0));
    }
    return (byte, page) => shades[byte & RESIDENT || !map.residencyKnown ? 1 : 0][holes[page]];
  }
  return (byte) => colours[byte];
}

class Painter {
  constructor(canvas, map, filter, marks, changes) {
    this.context = canvas.getContext("2d");
    this.map = map;
    this.changes = changes;
    this.shade = shadesOf(map, filter, marks, changes);
    this.tile = document.createElement("canvas");
  }

  hatch() {
    const small = document.createElement("canvas");
    small.width = small.height = 6;
    const context = small.getContext("2d");
    context.strokeStyle = css(palette.ground);
    context.lineWidth = 1.2;
    context.globalAlpha = 0.75;
    context.beginPath();
    for (const shift of [-6, 0, 6]) {
      context.moveTo(shift, 6);
      context.lineTo(shift + 6, 0);
    }
    context.stroke();
    return this.context.createPattern(small, "repeat");
  }

  // A picture of pages, one pixel each, stretched to a box.
  pixels(first, count, columns, x, y, w, h) {
    const rows = Math.ceil(count / columns);
    const { tile, shade, map } = this;
    [tile.width, tile.height] = [columns, rows];
    const context = tile.getContext("2d");
    const image = context.createImageData(columns, rows);
    const data = image.data;
    for (let nth = 0, to = 0; nth < count; nth++, to += 4) {
      const colour = shade(map.pages[first + nth], first + nth);
      data[to] = colour[0];
      data[to + 1] = colour[1];
      data[to + 2] = colour[2];
      data[to + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    this.context.imageSmoothingEnabled = w < columns;
    this.context.drawImage(tile, x, y, w, h);
  }

  space(layout) {
    const { context, map } = this;
    context.font = FONT;
    context.textBaseline = "middle";
    for (const label of layout.labels) {
      context.fillStyle = css(palette.ink);
      context.fillText(fitting(context, label.text, layout.width), label.x, label.y + LABEL / 2);
    }
    for (const item of layout.items) {
      if (item.kind === "arena") this.arena(item);
      else if (item.kind === "gap") this.gap(item);
      else this.block(map, item);
    }
  }

  arena({ at, x, y, w, h, rows }) {
    const { map, context } = this;
    if (at < map.shown) {
      const pages = Math.min(map.arena_first[at + 1] - map.arena_first[at], rows * TILE);
      this.pixels(map.arena_first[at], pages, TILE, x, y, w, h);
    } else {
      const share = map.arena_resident[at] / map.arena_size[at];
      context.fillStyle = css(mixed(palette.in_use, PALE + (1 - PALE) * share));
      context.fillRect(x, y, w, h);
    }
    context.strokeStyle = css(palette.line);
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
  }

  gap({ x, y, w, h }) {
    const { context } = this;
    context.fillStyle = css(palette.soft);
    for (const shift of [-5, 0, 5]) context.fillRect(x + w / 2 + shift - 1, y + h / 2 - 1, 2, 2);
  }

  block(map, item) {
    const { context } = this;
    const { x, y, w, h } = item;
    const full = palette[item.colour];
    const pale = mixed(full, item.state === 1 ? 0.08 : PALE);
    const dark = item.resident ? Math.max(2, (w * item.resident) / item.bytes) : 0;
    context.fillStyle = css(pale);
    context.fillRect(x, y, w, h);
    context.fillStyle = css(full);
    context.fillRect(x, y, Math.min(dark, w), h);
    if (w < 44) return;
    const text = item.to - item.at > 1 && !isSame(map, item.at, item.to - 1) && item.to - item.at > 60
      ? `${number(item.to - item.at)} areas` : shortName(map, item.at);
    context.font = FONT;
    context.textBaseline = "middle";
    // On two grounds: each half of the text is drawn where its own ground is.
    for (const [from, to, ground] of [[x, x + dark, full], [x + dark, x + w, pale]]) {
      context.save();
      context.beginPath();
      context.rect(from, y, Math.max(0, to - from), h);
      context.clip();
      context.beginPath();
      context.fillStyle = inkOn(ground);
      context.fillText(fitting(context, text, w - 8), x + 4, y + h / 2);
      context.restore();
    }
  }

  grid(layout) {
    const { context, map } = this;
    const { firstPage, count, columns, cell } = layout;
    if (layout.detailed) {
      for (let page = firstPage; page < firstPage + count; page++) this.page(layout, page);
      this.outlines(layout);
    } else {
      this.pixels(firstPage, count, columns, 0, 0, columns * cell, layout.rows * cell);
    }
    if (cell >= 4) {
      context.fillStyle = this.hatch();
      for (let page = firstPage; page < firstPage + count; page++) {
        if ((map.pages[page] & HUGE) === 0) continue;
        const { x, y, w, h } = layout.box({ at: page });
        context.fillRect(x, y, w, h);
      }
    }
    if (!layout.detailed && count > CHUNK) this.chunks(layout);
  }

  // A page as its two halves of 4 KiB.
  page(layout, page) {
    const { context, map } = this;
    const { x, y, w, h } = layout.box({ at: page });
    const byte = map.pages[page];
    for (const half of [0, 1]) {
      const resident = byte & (8 << half) ? RESIDENT : 0;
      const swapped = byte & (32 << half) ? SWAPPED : 0;
      context.fillStyle = css(this.shade((byte & 7) | resident | swapped, page));
      const middle = Math.round(w / 2);
      context.fillRect(half ? x + middle : x, y, half ? w - middle : middle, h);
    }
    if (isContradiction(byte) && w >= 14 && !this.changes) {
      context.strokeStyle = css(palette.ground);
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(x + w * 0.3, y + h * 0.3);
      context.lineTo(x + w * 0.7, y + h * 0.7);
      context.moveTo(x + w * 0.7, y + h * 0.3);
      context.lineTo(x + w * 0.3, y + h * 0.7);
      context.stroke();
    }
  }

  // Lines around each span, and what it holds in its first page.
  outlines(layout) {
    const { context, map } = this;
    const { firstPage, count, columns, cell } = layout;
    context.strokeStyle = css(palette.ink);
    context.lineWidth = 1;
    context.font = '10px ui-monospace, "DejaVu Sans Mono", monospace';
    context.textBaseline = "middle";
    let before = map.spanAt(firstPage);
    for (let page = firstPage; page < firstPage + count; page++) {
      const span = page === firstPage ? before : map.spanAt(page);
      const { x, y } = layout.box({ at: page });
      context.beginPath();
      if (page === firstPage || span !== before) {
        context.moveTo(x + 0.5, y);
        context.lineTo(x + 0.5, y + cell);
      }
      if (page - columns >= firstPage && map.spanAt(page - columns) !== span) {
        context.moveTo(x, y + 0.5);
        context.lineTo(x + cell, y + 0.5);
      }
      context.stroke();
      if (span >= 0 && !map.span_manual[span] && (page === firstPage || span !== before) && cell >= 26) {
        context.fillStyle = inkOn(this.shade(map.pages[page] & 31, page));
        context.fillText(slotLabel(map, span), x + 3, y + cell / 2, cell - 4);
      }
      before = span;
    }
  }

  chunks(layout) {
    const { context } = this;
    const rows = CHUNK / layout.columns;
    context.strokeStyle = css(palette.ink);
    context.globalAlpha = 0.35;
    context.lineWidth = 1;
    context.beginPath();
    for (let row = rows; row < layout.rows; row += rows) {
      context.moveTo(0, Math.round(row * layout.cell) + 0.5);
      context.lineTo(layout.columns * layout.cell, Math.round(row * layout.cell) + 0.5);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  slots(layout) {
    const { context, map } = this;
    const { span, count } = layout;
    const space = layout.cell > 12 ? 2 : 1;
    for (let at = 0; at < count; at++) {
      const { x, y, w, h } = layout.box({ at });
      const byte = map.pages[map.span_first[span] + Math.floor((at * map.span_object_size[span]) / PAGE)];
      const use = (map.isUsed(span, at) ?? at < map.span_objects[span]) ? 0 : 3;
      context.fillStyle = css(this.shade(use | (byte & ~7), map.span_first[span]));
      context.fillRect(x, y, w - space, h - space);
    }
  }

  cursor(box) {
    const { context } = this;
    context.strokeStyle = css(palette.ground);
    context.lineWidth = 4;
    context.strokeRect(box.x - 1, box.y - 1, box.w + 2, box.h + 2);
    context.strokeStyle = css(palette.focus);
    context.lineWidth = 2;
    context.strokeRect(box.x - 1, box.y - 1, box.w + 2, box.h + 2);
  }
}

function slotLabel(map, span) {
  const bytes = map.span_object_size[span];
  if (map.span_class[span] >> 1 === 0) return "large";
  return bytes < 1024 ? `${bytes}` : `${(bytes / 1024).toFixed(bytes % 1024 ? 1 : 0)}K`;
}

function shortName(map, area) {
  const name = map.names[map.area_name[area]];
  const kind = content.kinds[map.area_kind[area]].replaceAll("_", " ");
  return name ? name.slice(name.lastIndexOf("/") + 1) || name : kind === "other" ? "anonymous" : kind;
}

function fitting(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(text.slice(0, end) + "…").width > width) end--;
  return end > 1 ? text.slice(0, end) + "…" : "";
}
