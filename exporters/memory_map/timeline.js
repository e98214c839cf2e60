// What was watched: bytes and threads over time.

const SERIES = [
  { name: "RSS", at: 1, colour: "ink", width: 2 },
  { name: "heap in use", at: 5, colour: "in_use", width: 2 },
  { name: "live heap", at: 6, colour: "stack", width: 1.5, step: true },
];
const SPACE_SERIES = [
  { name: "reserved", at: 2, colour: "reserved", width: 1.5 },
  { name: "prepared", at: 3, colour: "prepared", width: 1.5 },
  { name: "ready", at: 4, colour: "ready", width: 1.5 },
];
const THREAD_SERIES = [{ name: "threads", at: 7, colour: "thread", width: 1.5, step: true }];

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
    const space = content.course.filter((row) => row[2] !== null);
    const threads = content.course.filter((row) => row[7] !== null);
    const goals = this.cycles.map((cycle) => Math.max(cycle.goal && cycle.goal < 2 ** 62 ? cycle.goal : 0, cycle.heap_before ?? 0));
    const charts = [
      this._chart("RAM and heap", SERIES, content.course, 220, {
        least: Math.max(1, ...goals),
        limits: limitsOfMemory(),
        marks: this.cycles.length ? [[css(mixed(palette.scavenged, 0.35, palette.ground)), "the collector marks"]] : [],
        under: (svg, x, y, edge) => this._cycles(svg, x, y, edge, 220),
      }),
    ];
    if (space.length > 1) charts.push(this._chart("Address space of the runtime", SPACE_SERIES, space, 130, {}));
    if (threads.length > 1) charts.push(this._chart("Threads", THREAD_SERIES, threads, 90, { least: 4, unit: number }));
    this.place.replaceChildren(...charts);
  }

  show(moment) {
    this.moment = moment;
    this.draw();
  }

  _chart(title, series, rows, height, more) {
    const chart = timeChart({
      title,
      label: `${title} over ${this.until.toFixed(1)} seconds`,
      series: series.map((one) => ({ ...one, colour: css(palette[one.colour]) })),
      rows,
      width: Math.max(this.place.clientWidth, 200),
      height,
      from: 0,
      until: this.until,
      time: (at) => `${at} s`,
      over: (svg, x, y, edge) => this._moments(svg, x, edge, height),
      ...more,
    });
    chart.svg.on("mousemove", (event) => this._tell(chart.x.invert(d3.pointer(event)[0])));
    chart.svg.on("click", (event) => this._choose(chart.x.invert(d3.pointer(event)[0])));
    return chart.element;
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
