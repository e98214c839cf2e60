// Lines over time on one pair of axes. The scales, axes and lines are d3's.

const CHART_EDGE = { top: 8, right: 12, bottom: 24, left: 64 };

// What a chart shows: { title, series, rows, width, height, from, until, least, limits, unit, time, under, over }.
// `rows` are numbers, of each row the first is its time; `series`: { name, at, colour, width, step }, `at` the place in
// a row, `colour` a CSS colour. `least`: what the axis reaches up to at least. `limits`: { name, value }.
// `unit` writes a value, `time` a time; `ticks` are values of the axis of time, or left to d3.
// `under` and `over` draw behind and before the lines: (svg, x, y, edge). `marks`: more of the key, [colour, name].
// Returns { element, svg, x }: its part of the page, what is drawn, and the scale of time.
function timeChart(shown) {
  const { title, series, rows, width, height, from, until, limits = [], unit = size, under, over } = shown;
  const edge = CHART_EDGE;
  const top = Math.max(shown.least ?? 1, ...rows.flatMap((row) => series.map((one) => row[one.at] ?? 0)));
  const near = limits.filter((limit) => limit.value <= 3 * top);
  const x = d3.scaleLinear().domain([from, until]).range([edge.left, width - edge.right]);
  const y = d3.scaleLinear().domain([0, Math.max(top, ...near.map((limit) => limit.value)) * 1.05])
    .range([height - edge.bottom, edge.top]);
  const svg = d3.create("svg").attr("class", "chart").attr("viewBox", `0 0 ${width} ${height}`).attr("height", height)
    .attr("role", "img").attr("aria-label", shown.label ?? title);
  under?.(svg, x, y, edge);
  const ticks = d3.axisLeft(y).tickFormat(unit).tickSize(edge.left + edge.right - width);
  if (unit === size) ticks.tickValues(byteTicks(y.domain()[1]));
  else ticks.ticks(Math.max(2, height / 50));
  svg.append("g").attr("class", "axis").attr("transform", `translate(${edge.left},0)`).call(ticks);
  const times = d3.axisBottom(x).tickFormat(shown.time);
  if (shown.ticks) times.tickValues(shown.ticks);
  else times.ticks(Math.max(3, width / 110));
  svg.append("g").attr("class", "axis").attr("transform", `translate(0,${height - edge.bottom})`).call(times);
  for (const one of series) chartLine(svg, rows, one, x, y);
  for (const limit of near) {
    svg.append("line").attr("class", "limit").attr("x1", edge.left).attr("x2", width - edge.right).attr("y1", y(limit.value))
      .attr("y2", y(limit.value));
    svg.append("text").attr("class", "limit").attr("x", width - edge.right).attr("y", y(limit.value) - 4)
      .attr("text-anchor", "end").text(`${limit.name} ${unit(limit.value)}`);
  }
  over?.(svg, x, y, edge);
  const element = document.createElement("div");
  element.append(chartKey(title, [...series.map((one) => [one.colour, one.name]), ...(shown.marks ?? [])]), svg.node());
  return { element, svg, x };
}

// Where there are few points, each is a dot, too.
function chartLine(svg, rows, one, x, y) {
  const known = rows.filter((row) => row[one.at] !== null);
  const line = d3.line().x((row) => x(row[0])).y((row) => y(row[one.at])).curve(one.step ? d3.curveStepAfter : d3.curveLinear);
  svg.append("path").attr("class", "line").attr("fill", "none").style("stroke", one.colour).attr("stroke-width", one.width ?? 2)
    .attr("d", line(known));
  if (known.length > 12) return;
  svg.selectAll(null).data(known).join("circle").attr("class", "look").attr("cx", (row) => x(row[0])).attr("cy", (row) => y(row[one.at]))
    .attr("r", 3).style("fill", one.colour);
}

function chartKey(title, marks) {
  const list = document.createElement("ul");
  list.className = "key";
  const heading = document.createElement("li");
  heading.append(Object.assign(document.createElement("b"), { textContent: title }));
  list.append(heading);
  for (const [colour, name] of marks) {
    const item = document.createElement("li");
    const mark = document.createElement("i");
    mark.style.background = colour;
    item.append(mark, name);
    list.append(item);
  }
  return list;
}

// Round numbers of bytes up to `most`, some five of them.
function byteTicks(most) {
  let step = 2 ** Math.floor(Math.log2(most / 4));
  if (!(step >= 1)) step = 1;
  return d3.range(0, most, step);
}
