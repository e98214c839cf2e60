// The page of a process: what is known now, and the last hour.

const main = document.querySelector("main");
const CHARTS = [
  { title: "RAM and heap", height: 220, limits: true, series: [
    ["rss", "RSS", "ink", 2], ["in_use", "heap in use", "in_use", 2], ["live", "live heap", "stack", 1.5, true],
    ["goal", "heap goal", "work_buf", 1, true]] },
  { title: "What else is in RAM", height: 150, series: [
    ["free", "heap kept free", "free", 1.5], ["stacks", "goroutine stacks", "stack", 1.5], ["outside", "outside Go", "c", 1.5],
    ["file", "of files", "file", 1.5], ["swap", "swapped out", "contradiction", 1.5]] },
  { title: "Address space of the runtime", height: 130, series: [
    ["reserved", "reserved", "reserved", 1.5], ["prepared", "prepared", "prepared", 1.5], ["ready", "ready", "ready", 1.5]] },
  { title: "Collections a second", height: 90, unit: threeDigits, least: 0.1, series: [
    ["gc_rate", "GC/s", "ink", 1.5]] },
  { title: "Goroutines and threads", height: 90, unit: number, least: 4, series: [
    ["goroutines", "goroutines", "stack", 1.5], ["threads", "threads", "thread", 1.5, true]] },
];
const LIMITS = [["gomemlimit", "GOMEMLIMIT"], ["container", "cgroup's limit"]];
const SHORTEST = 60; // seconds that the axis has at least
let course = null;
let moment = null; // the time that was chosen; null: the newest

function clock(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB");
}

function nearest(at) {
  let best = 0;
  course.times.forEach((time, index) => {
    if (Math.abs(time - at) < Math.abs(course.times[best] - at)) best = index;
  });
  return best;
}

function draw() {
  const shown = course !== null && course.times.length > 1;
  place("scrub").hidden = !shown;
  place("course-none").hidden = shown;
  place("course-table").hidden = !shown;
  if (!shown) return;
  const { times, figures } = course;
  const until = times[times.length - 1];
  const from = Math.min(times[0], until - SHORTEST);
  const width = Math.max(place("course").clientWidth, 200);
  const ticks = d3.scaleTime().domain([new Date(from * 1000), new Date(until * 1000)]).ticks(Math.max(3, width / 110)).map((at) => at / 1000);
  const at = moment === null ? times.length - 1 : nearest(moment);
  const charts = CHARTS.filter(({ series }) => series.some(([name]) => figures[name].some((value) => value !== null))).map((told) => {
    const known = told.series.filter(([name]) => figures[name].some((value) => value));
    const series = (known.length ? known : told.series).map(([name, words, colour, line, step], index) => (
      { name: words, at: index + 1, figure: name, colour: `var(--${colour})`, width: line, step }));
    const limits = told.limits ? LIMITS.map(([name, words]) => ({ name: words, value: figures[name][times.length - 1] })).filter((limit) => limit.value) : [];
    const chart = timeChart({
      title: told.title,
      label: `${told.title}, ${clock(from)} to ${clock(until)}`,
      series,
      rows: times.map((time, index) => [time, ...series.map((one) => figures[one.figure][index])]),
      width,
      height: told.height,
      from,
      until,
      least: told.least,
      limits,
      unit: told.unit ?? size,
      ticks,
      time: (time) => clock(time).slice(0, until - from > 600 ? 5 : 8),
      over: (svg, x, y, edge) => {
        if (moment === null) return;
        svg.append("line").attr("class", "now").attr("x1", x(times[at])).attr("x2", x(times[at])).attr("y1", edge.top).attr("y2", told.height - edge.bottom);
      },
    });
    chart.svg.on("mousemove", (event) => tell(nearest(chart.x.invert(d3.pointer(event)[0]))));
    chart.svg.on("mouseleave", () => tell(moment === null ? course.times.length - 1 : nearest(moment)));
    chart.svg.on("click", (event) => go(nearest(chart.x.invert(d3.pointer(event)[0]))));
    return chart.element;
  });
  place("course").replaceChildren(...charts);
  place("moment").max = times.length - 1;
  place("moment").value = at;
  place("newest").disabled = moment === null;
  tell(at);
  if (place("course-table").open) fillTable();
}

function tell(at) {
  const { times, figures } = course;
  const ago = course.times[times.length - 1] - times[at];
  const words = CHARTS.flatMap((chart) => chart.series.map(([name, said]) => [chart, name, said]))
    .filter(([, name]) => figures[name][at] !== null && !(name === "swap" && !figures[name][at]))
    .map(([chart, name, said]) => `${said} ${(chart.unit ?? size)(figures[name][at])}`);
  const text = `${clock(times[at])}${ago ? `, ${seconds(ago)} before the newest` : ""}: ${words.join(", ")}`;
  write(place("course-told"), text);
  place("moment").setAttribute("aria-valuetext", text);
}

// Show a moment, by its index; the newest one goes on with time.
function go(at) {
  moment = at === course.times.length - 1 ? null : course.times[at];
  draw();
}

function fillTable() {
  const names = [...place("course-table").querySelectorAll("[data-figure]")].map((head) => head.dataset.figure);
  const rows = course.times.map((time, at) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = new Date(time * 1000).toISOString().slice(11, 19);
    row.append(head, ...names.map((name) => {
      const cell = document.createElement("td");
      cell.textContent = COUNTED.has(name) ? (course.figures[name][at] === null ? "?" : number(course.figures[name][at])) : size(course.figures[name][at]);
      return cell;
    }));
    return row;
  });
  place("course-table").querySelector("tbody").replaceChildren(...rows.reverse());
}
const COUNTED = new Set(["cycles", "goroutines", "threads"]);

function takeCourse(fresh) {
  course = fresh;
  if (course.ended) write(place("refreshed"), "the process has ended");
  draw();
}

function takeFigures(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = main.querySelector(`[data-part="${part.dataset.part}"]`);
    if (old) become(old, part);
  }
}

place("moment").addEventListener("input", () => go(Number(place("moment").value)));
place("newest").addEventListener("click", () => go(course.times.length - 1));
place("peak").addEventListener("click", () => {
  const { rss } = course.figures;
  go(rss.reduce((best, value, at) => ((value ?? 0) > (rss[best] ?? 0) ? at : best), 0));
});
place("course-table").addEventListener("toggle", () => course && fillTable());
let drawn = place("course").clientWidth;
new ResizeObserver(([entry]) => {
  if (Math.abs(entry.contentRect.width - drawn) < 1) return;
  drawn = entry.contentRect.width;
  draw();
}).observe(place("course"));
const base = `/targets/${main.dataset.target}`;
new Refresh(Number(main.dataset.refresh), [
  { address: `${base}/figures`, take: takeFigures },
  { address: `${base}/history.json`, take: takeCourse },
]);
