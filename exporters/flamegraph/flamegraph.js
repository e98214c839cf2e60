// Draws the page's profile with d3-flame-graph, and lets a person choose, search and move in it.
// In a page that has more than it, the ids of its elements begin with a prefix, and its keys work inside it only.
"use strict";
(() => {
  const prefix = document.currentScript.dataset.prefix ?? "";
  const place = (id) => document.getElementById(prefix + id);
  const data = JSON.parse(place("profile").textContent);
  const inlined = new Set(data.inlined);
  const count = data.name.length;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let view = null;     // what is drawn: arrays by frame
  let chart = null;
  let current = null;  // the node that the keyboard is on
  let shapes = new Map();  // the drawn element of a node's id

  // Figures, as gomem writes them everywhere.
  const digits = (value) => (value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0));
  const size = (bytes) => {
    if (bytes < 1024) return `${bytes} B`;
    let unit = 0;
    for (; bytes >= 1023.5 && unit < UNITS.length - 1; unit++) bytes /= 1024;
    return `${digits(bytes)} ${UNITS[unit]}`;
  };
  const seconds = (value) => (value < 1 ? `${digits(value * 1000)} ms` : `${digits(value)} s`);
  const shown = (value, signed) => {
    const unit = data.types[view.type][1];
    const sign = value < 0 ? "-" : signed && value > 0 ? "+" : "";
    const whole = Math.abs(value);
    if (unit === "bytes") return sign + size(whole);
    return sign + (unit === "nanoseconds" ? seconds(whole / 1e9) : whole.toLocaleString("en-US"));
  };
  const share = (value, whole) => `${(whole ? (100 * value) / whole : 0).toFixed(2)}%`;
  const name = (frame) => data.names[data.name[frame]];

  // Values by frame: its own, or with all that it calls.
  const own = (column, of = (value) => value) => {
    const values = new Float64Array(count);
    for (const [frame, ...row] of data.own) values[frame] = of(row[column], row);
    return values;
  };
  const withCallees = (values) => {
    const sums = Float64Array.from(values);
    for (let frame = count - 1; frame > 0; frame--) sums[data.caller[frame]] += sums[frame];
    return sums;
  };

  const look = (type, show) => {
    const later = data.difference ? type + data.types.length : type;
    const change = own(later, (value, row) => value - (data.difference ? row[type] : 0));
    const drawn = { before: () => own(type), after: () => own(later), change: () => change }[show]();
    return {
      type,
      show,
      before: data.difference ? withCallees(own(type)) : null,
      after: withCallees(own(later)),
      change: withCallees(change),
      own: own(later),
      width: withCallees(drawn.map(Math.abs)),
    };
  };

  const tree = () => {
    const nodes = Array.from({ length: count }, (_, frame) => (
      { frame, name: name(frame), value: view.width[frame], children: [] }));
    for (let frame = 1; frame < count; frame++) {
      if (view.width[frame] > 0) nodes[data.caller[frame]].children.push(nodes[frame]);
    }
    for (const node of nodes) node.children.sort((a, b) => b.value - a.value || (a.name < b.name ? -1 : 1));
    return nodes[0];
  };

  const told = ({ data: { frame } }) => {
    const called = name(frame) + (inlined.has(frame) ? " (inline)" : "");
    const after = view.after[frame];
    if (!data.difference) {
      return `${called}: ${shown(after)}, ${share(after, view.after[0])} of all; itself ${shown(view.own[frame])}`;
    }
    const before = view.before[frame];
    const change = view.change[frame];
    return `${called}: ${shown(before)} before, ${shown(after)} after: ${shown(change, true)}, `
      + `${share(change, view.before[0])} of all before`;
  };

  // A colour for each package, so that its functions are seen together; of a difference, what grew and what shrank.
  const hue = (text) => {
    let hash = 7;
    for (const letter of text) hash = (hash * 31 + letter.codePointAt(0)) % 100003;
    return hash % 360;
  };
  // Where the last part of a function's import path begins; its type arguments have paths of their own.
  const lastPart = (called) => called.split("[", 1)[0].lastIndexOf("/") + 1;
  const packageOf = (called) => {
    const dot = called.indexOf(".", lastPart(called));
    return dot < 0 ? called : called.slice(0, dot);
  };
  const colour = (node) => {
    if (node.highlight) return dark.matches ? "#6639ba" : "#e0b0ff";
    const { frame } = node.data;
    if (frame === 0) return dark.matches ? "#2a313a" : "#e6e9ed";
    if (!data.difference) {
      const of = hue(packageOf(name(frame)));
      return dark.matches ? `hsl(${of} 34% 27%)` : `hsl(${of} 62% 82%)`;
    }
    const most = Math.max(Math.abs(view.before[frame]), Math.abs(view.after[frame]));
    const part = most ? Math.min(1, Math.abs(view.change[frame]) / most) : 0;
    const of = view.change[frame] > 0 ? 18 : 203;
    const strength = part && Math.round(25 + 50 * part);
    return dark.matches ? `hsl(${of} ${strength}% ${24 + 10 * part}%)` : `hsl(${of} ${strength}% ${90 - 18 * part}%)`;
  };

  // After each drawing: the elements of the nodes, and the one that the keyboard is on.
  const bind = () => {
    shapes = new Map();
    d3.select(place("chart")).selectAll("g.frame").each(function (node) {
      shapes.set(node, this);
      this.setAttribute("role", "button");
      this.setAttribute("tabindex", "-1");
    });
    if (!shapes.has(current)) current = d3.select(place("chart")).datum();
    shapes.get(current)?.setAttribute("tabindex", "0");
  };

  const redraw = () => {
    view = look(Number(place("type").value), place("show").value);
    place("chart").replaceChildren();
    chart = flamegraph.default()
      .width(Math.max(320, place("chart").clientWidth))
      .cellHeight(22)
      .inverted(true)
      .minFrameSize(0.5)
      .resetHeightOnZoom(true)
      .transitionDuration(still.matches ? 0 : 200)
      .setColorMapper(colour)
      .getName((node) => node.data.name.slice(lastPart(node.data.name)))
      .setLabelHandler(told)
      .setDetailsHandler((text) => { place("told").textContent = text || ""; })
      .onClick((node) => { current = node; bind(); shapes.get(node)?.focus(); });
    current = null;
    d3.select(place("chart")).datum(tree()).call(chart);
    bind();
    summary();
    search();
  };

  const summary = () => {
    const type = data.types[view.type][0];
    place("sum").textContent = data.difference
      ? `${type}: ${shown(view.before[0])} before, ${shown(view.after[0])} after: ${shown(view.change[0], true)}`
      : `${type}: ${shown(view.after[0])}`;
  };

  const search = () => {
    const term = place("search").value.trim().toLowerCase();
    let frames = 0;
    let value = 0;
    const mark = [[d3.select(place("chart")).datum(), false]];
    while (mark.length) {
      const [node, within] = mark.pop();
      node.highlight = term !== "" && node.data.frame !== 0 && node.data.name.toLowerCase().includes(term);
      frames += node.highlight;
      value += node.highlight && !within ? view.width[node.data.frame] : 0;
      for (const callee of node.children || []) mark.push([callee, within || node.highlight]);
    }
    place("found").textContent = term === "" ? ""
      : `${frames.toLocaleString("en-US")} frame${frames === 1 ? "" : "s"}, ${shown(value)}, ${share(value, view.width[0])}`;
    chart.update();
    bind();
  };

  const reset = () => {
    chart.zoomTo(d3.select(place("chart")).datum());
    place("told").textContent = "";
  };

  const besides = (node, step) => {
    const row = (node.parent?.children || [node]).filter((each) => shapes.has(each));
    return row[row.indexOf(node) + step];
  };
  const MOVES = {
    ArrowUp: (node) => node.parent,
    ArrowDown: (node) => (node.children || []).find((each) => shapes.has(each)),
    ArrowLeft: (node) => besides(node, -1),
    ArrowRight: (node) => besides(node, 1),
    Home: () => d3.select(place("chart")).datum(),
  };
  place("chart").addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      chart.zoomTo(current);
    } else if (event.key in MOVES) {
      event.preventDefault();
      const next = MOVES[event.key](current);
      if (next && shapes.has(next)) shapes.get(next).focus();
    }
  });
  place("chart").addEventListener("focusin", (event) => {
    const node = d3.select(event.target).datum();
    if (!shapes.has(node)) return;
    shapes.get(current)?.setAttribute("tabindex", "-1");
    current = node;
    shapes.get(node).setAttribute("tabindex", "0");
    place("told").textContent = told(node);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target === place("search");
    if (prefix && !typing && !place("chart").contains(event.target)) return;
    if (event.key === "/" && !typing && !prefix) {
      event.preventDefault();
      place("search").focus();
    } else if (event.key === "Escape" && typing) {
      place("search").value = "";
      search();
    } else if (event.key === "Escape") {
      reset();
    }
  });

  const offer = (select, options, chosen) => {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, String(value) === chosen)));
    select.addEventListener("change", redraw);
  };
  offer(place("type"), data.types.map(([type], at) => [at, type]), String(data.first));
  offer(place("show"), data.difference
    ? [["after", "after, coloured by the change"], ["before", "before, coloured by the change"], ["change", "the change alone"]]
    : [["after", ""]], "after");
  place("showing").hidden = place("legend").hidden = !data.difference;
  if (data.cut) {
    place("cut").hidden = false;
    place("cut").textContent = `${data.cut.toLocaleString("en-US")} samples end in calls that are not shown: the graph `
      + "has the largest stacks, and 500 calls of each.";
  }
  place("search").addEventListener("input", search);
  place("reset").addEventListener("click", reset);
  dark.addEventListener("change", () => chart.update());
  let width = place("chart").clientWidth;
  window.addEventListener("resize", () => {
    if (place("chart").clientWidth !== width) redraw();
    width = place("chart").clientWidth;
  });
  redraw();
})();
