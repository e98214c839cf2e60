// What was watched: bytes over time. The scales, axes and lines are d3's.

const SERIES = [
  { name: "RSS", at: 1, colour: "ink", width: 2 },
  { name: "heap in use", at: 5, colour: "in_use", width: 2 },
  { name: "live heap", at: 6, colour: "stack", width: 1.5, step: true },
];
const SPACE_SERIES = [
  { name: "reserved", at: 2, colour: "scavenged", width: 1.5 },
  { name: "prepared", at: 3, colour: "free", width: 1.5 },
  { name: "ready", at: 4, colour: "runtime", width: 1.5 },
];

function limitsOfMemory() {
  const found = [];
  const go = report.heap?.memory_limit;
  const group = report.process.cgroup?.memory_max;
  if (go) found.push({ name: "GOMEMLIMIT", value: go });
  if (group) found.push({ name: "container's limit", value: group });
  return found;
}

class Timeline {
  // `chosen` is called with the index of the map whose moment is the nearest to where a person clicks.
  constructor(place, chosen) {
    this.place = place;
    this.chosen = chosen;
    this.moment = content.maps.length - 1;
    this.cycles = (report.gc_cycles ?? []).filter((cycle) => cycle.started !== null);
    this.until = Math.max(report.duration_seconds, ...content.course.map((row) => row[0]), ...this.cycles.map((cycle) => cycle.started), 0.001);
    this.draw();
  }

  draw() {
    const width = Math.max(this.place.clientWidth, 200);
    const space = content.course.filter((row) => row[2] !== null);
    const charts = [this._chart("RAM and heap", SERIES, content.course, width, 220, true)];
    if (space.length > 1) charts.push(this._chart("Address space of the runtime", SPACE_SERIES, space, width, 130, false));
    this.place.replaceChildren(...charts);
  }

  show(moment) {
    this.moment = moment;
    this.draw();
  }

  _chart(title, series, rows, width, height, whole) {
    const edge = { top: 8, right: 12, bottom: 24, left: 64 };
    const top = Math.max(1, ...rows.flatMap((row) => series.map((one) => row[one.at] ?? 0)),
      ...(whole ? this.cycles.map((cycle) => Math.max(cycle.goal && cycle.goal < 2 ** 62 ? cycle.goal : 0, cycle.heap_before ?? 0)) : []));
    const limits = whole ? limitsOfMemory().filter((limit) => limit.value <= 3 * top) : [];
    const x = d3.scaleLinear().domain([0, this.until]).range([edge.left, width - edge.right]);
    const y = d3.scaleLinear().domain([0, Math.max(top, ...limits.map((limit) => limit.value)) * 1.05])
      .range([height - edge.bottom, edge.top]);
    const svg = d3.create("svg").attr("viewBox", `0 0 ${width} ${height}`).attr("height", height).attr("role", "img")
      .attr("aria-label", `${title} over ${this.until.toFixed(1)} seconds`);
    if (whole) this._cycles(svg, x, y, edge, height);
    const ticks = d3.axisLeft(y).tickValues(byteTicks(y.domain()[1])).tickFormat(size).tickSize(edge.left + edge.right - width);
    svg.append("g").attr("class", "axis").attr("transform", `translate(${edge.left},0)`).call(ticks);
    svg.append("g").attr("class", "axis").attr("transform", `translate(0,${height - edge.bottom})`)
      .call(d3.axisBottom(x).ticks(Math.max(3, width / 110)).tickFormat((at) => `${at} s`));
    for (const one of series) this._line(svg, rows, one, x, y);
    for (const limit of limits) {
      svg.append("line").attr("class", "limit").attr("x1", edge.left).attr("x2", width - edge.right).attr("y1", y(limit.value))
        .attr("y2", y(limit.value));
      svg.append("text").attr("class", "limit").attr("x", width - edge.right).attr("y", y(limit.value) - 4)
        .attr("text-anchor", "end").text(`${limit.name} ${size(limit.value)}`);
    }
    this._moments(svg, x, edge, height);
    svg.on("mousemove", (event) => this._tell(x.invert(d3.pointer(event)[0])));
    svg.on("click", (event) => this._choose(x.invert(d3.pointer(event)[0])));
    const part = document.createElement("div");
    part.append(this._key(title, series, whole), svg.node());
    return part;
  }

  _line(svg, rows, one, x, y) {
    const known = rows.filter((row) => row[one.at] !== null);
    const line = d3.line().x((row) => x(row[0])).y((row) => y(row[one.at])).curve(one.step ? d3.curveStepAfter : d3.curveLinear);
    svg.append("path").attr("fill", "none").attr("stroke", css(palette[one.colour])).attr("stroke-width", one.width).attr("d", line(known));
    if (known.length > 12) return;
    svg.selectAll(null).data(known).join("circle").attr("class", "look").attr("cx", (row) => x(row[0])).attr("cy", (row) => y(row[one.at]))
      .attr("r", 3).attr("fill", css(palette[one.colour]));
  }

  // Collections as bands while they mark, and the goal that each had.
  _cycles(svg, x, y, edge, height) {
    for (const cycle of this.cycles) {
      const end = cycle.ended ?? this.until;
      svg.append("rect").attr("class", "cycle").attr("x", x(Math.max(cycle.started, 0))).attr("y", edge.top)
        .attr("width", Math.max(1, x(end) - x(Math.max(cycle.started, 0)))).attr("height", height - edge.bottom - edge.top);
      if (cycle.goal && cycle.goal < 2 ** 62) {
        svg.append("circle").attr("class", "goal").attr("cx", x(Math.max(cycle.started, 0))).attr("cy", y(cycle.goal)).attr("r", 2.5);
      }
    }
  }

  _key(title, series, whole) {
    const list = document.createElement("ul");
    list.className = "key";
    const heading = document.createElement("li");
    heading.append(Object.assign(document.createElement("b"), { textContent: title }));
    list.append(heading);
    const marks = series.map((one) => [css(palette[one.colour]), one.name]);
    if (whole && this.cycles.length) marks.push([css(mixed(palette.scavenged, 0.35, palette.ground)), "the collector marks"]);
    for (const [colour, name] of marks) {
      const item = document.createElement("li");
      const mark = document.createElement("i");
      mark.style.background = colour;
      item.append(mark, name);
      list.append(item);
    }
    return list;
  }

  _moments(svg, x, edge, height) {
    if (content.maps.length < 2) return;
    content.maps.forEach((told, at) => {
      svg.append("path").attr("class", at === this.moment ? "moment now" : "moment")
        .attr("d", `M${x(told.seconds)},${height - edge.bottom}l-4,7h8z`);
    });
    const at = x(content.maps[this.moment].seconds);
    svg.append("line").attr("class", "now").attr("x1", at).attr("x2", at).attr("y1", edge.top).attr("y2", height - edge.bottom);
  }

  _tell(seconds) {
    const near = content.course.reduce((best, row) => (Math.abs(row[0] - seconds) < Math.abs(best[0] - seconds) ? row : best), content.course[0]);
    if (!near) return;
    const words = SERIES.filter((one) => near[one.at] !== null).map((one) => `${one.name} ${size(near[one.at])}`);
    const cycle = this.cycles.find((one) => one.started <= seconds && seconds <= (one.ended ?? this.until));
    if (cycle) words.push(`the collector marks (${((cycle.mark_seconds ?? 0) * 1000).toFixed(1)} ms)`);
    const before = this.cycles.filter((one) => one.started <= seconds).pop();
    const scavenged = (before?.scavenged_during ?? 0) + (before?.scavenged_after ?? 0);
    if (scavenged) words.push(`${size(scavenged)} scavenged in this cycle`);
    document.getElementById("course-told").textContent = `${near[0].toFixed(2)} s: ${words.join(", ")}`;
  }

  _choose(seconds) {
    if (content.maps.length < 2) return;
    const far = (told) => Math.abs(told.seconds - seconds);
    this.chosen(content.maps.reduce((best, told, at) => (far(told) < far(content.maps[best]) ? at : best), 0));
  }
}

// Round numbers of bytes up to `most`, some five of them.
function byteTicks(most) {
  let step = 2 ** Math.floor(Math.log2(most / 4));
  if (!(step >= 1)) step = 1;
  return d3.range(0, most, step);
}
