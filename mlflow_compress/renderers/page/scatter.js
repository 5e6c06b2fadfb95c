// The scatter: a point for each row with both numbers, and lines through the points that no other point beats.

const COLOURS = 8;
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "drop", "star"];
const RADIUS = 6; // of a point, in pixels
const MOST_TOLD = 5; // rows in one tooltip

// Return the points of each group of comparable rows. The data decides over all rows which points are beaten.

function groups(points, x, y) {
  const judged = verdicts[`${x.value}|${y.value}`] ?? verdicts[`${y.value}|${x.value}`] ?? [];
  const byGroup = new Map();
  for (const point of points) {
    const verdict = judged[point.at] ?? null;
    if (verdict === null) continue;
    point.dominated = verdict < 0;
    const group = verdict < 0 ? -1 - verdict : verdict;
    if (!byGroup.has(group)) byGroup.set(group, []);
    byGroup.get(group).push(point);
  }
  return [...byGroup.values()];
}

function shapePath(shape, r) {
  if (shape === "circle") return `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
  const t = 1 / 2.6;
  const corners = {
    square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
    triangle: [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]],
    drop: [[0, 1.2], [1.1, -0.8], [-1.1, -0.8]],
    diamond: [[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]],
    cross: [
      [-t, -1], [t, -1], [t, -t], [1, -t], [1, t], [t, t], [t, 1], [-t, 1], [-t, t], [-1, t], [-1, -t], [-t, -t],
    ],
    star: Array.from({ length: 10 }, (_, at) => {
      const reach = at % 2 ? 0.55 : 1.35;
      return [reach * Math.sin((at * Math.PI) / 5), -reach * Math.cos((at * Math.PI) / 5)];
    }),
  };
  return `M${corners[shape].map(([a, b]) => `${(a * r).toFixed(2)} ${(b * r).toFixed(2)}`).join("L")}z`;
}

function verdict(point, isRanked) {
  if (isRanked) return point.dominated ? words.ranked_dominated : words.ranked_best;
  return point.dominated ? words.dominated : words.best;
}

function describe(point, x, y, isRanked) {
  const row = rows[point.at];
  const marks = [];
  if (row.by_hand) marks.push(words.by_hand);
  if (point.dominated !== undefined) marks.push(verdict(point, isRanked));
  return [
    [row.team, row.model].filter(Boolean).join(", "),
    row.label,
    `${x.label}: ${written(point.x, x)}${within(point.at, x)}`,
    `${y.label}: ${written(point.y, y)}${within(point.at, y)}`,
    ...marks,
  ].join("\n");
}

// Return the uncertainty of a ratio as text.

function within(at, axis) {
  const metric = metrics[axis.at];
  if (!axis.isRatio || metric.told_apart[at] === undefined) return "";
  const ends = metric.intervals[at];
  if (ends) return ` (${say(words.interval, { low: written(ends[0], axis), high: written(ends[1], axis) })})`;
  return metric.told_apart[at] === null ? ` (${words.noise_unknown})` : "";
}

const tip = make("div", { id: "tip", hidden: "" });

// The tooltip also lists the points that this point covers.

function showTip(point, points, width) {
  const together = points.filter(({ px, py }) => Math.hypot(px - point.px, py - point.py) < RADIUS);
  const texts = [point, ...together.filter((other) => other !== point)].map((covered) => covered.text);
  tip.textContent = [...texts.slice(0, MOST_TOLD), ...(texts.length > MOST_TOLD ? ["…"] : [])].join("\n\n");
  tip.hidden = false;
  tip.style.top = `${point.py + 14}px`;
  tip.style.left = point.px < width / 2 ? `${point.px + 12}px` : "";
  tip.style.right = point.px < width / 2 ? "" : `${width - point.px + 12}px`;
}

function drawScatter() {
  const box = byId("scatter");
  const [x, y] = [axisOf(xSelect.value), axisOf(ySelect.value)];
  const points = [];
  rows.forEach((row, at) => {
    const [px, py] = [x.values[at], y.values[at]];
    if (shown[at] && px !== null && py !== null) points.push({ at, x: px, y: py });
  });
  byId("scatter-legend").replaceChildren();
  if (!points.length) {
    box.replaceChildren(make("p", { class: "hint" }, words.no_points));
    byId("scatter-hint").textContent = "";
    return;
  }
  const width = Math.max(280, box.clientWidth);
  const height = Math.round(Math.min(440, Math.max(300, width * 0.62)));
  const titles = [x, y].map((axis) => wrap(axis.label + direction(axis), Math.floor(width / 8)));
  const edge = { right: 18, top: 10 + 15 * titles[1].length, bottom: 31 + 15 * titles[0].length };
  const along = scale(points.map((point) => point.y), height - edge.bottom, edge.top, y, () => 20);
  const labels = along.ticks.map((tick) => written(tick, y).length);
  edge.left = 14 + CHARACTER * Math.max(3, ...labels);
  const room = (text) => 12 + CHARACTER * text.length;
  const across = scale(points.map((point) => point.x), edge.left, width - edge.right, x, room);
  const name = `${words.scatter}: ${x.label}; ${y.label}`;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": name });
  drawAxes(svg, across, along, x, y, titles, width, height, edge);
  for (const point of points) [point.px, point.py] = [across.place(point.x), along.place(point.y)];

  const isRanked =
    ranked !== null && !x.relative && !y.relative && ranked.axes.includes(x.at) && ranked.axes.includes(y.at) && x.at !== y.at;
  const together = groups(points, x, y);
  const fronts = isRanked && !ranked.has_line ? [] : together.map((group) => group.filter((point) => !point.dominated));
  const joined = fronts.map((front) => onLine(front, x, y)).filter((line) => line.length > 1);
  for (const line of joined) svg.append(draw("path", { class: "front", d: steps(line, x, y) }));
  for (const point of points) point.text = describe(point, x, y, isRanked);
  const look = looks(points);
  drawPoints(svg, points, look, width);
  drawLegend(points, look, joined.length > 0);
  box.replaceChildren(svg, tip);
  tip.hidden = true;
  const logs = [across.log && x.label, along.log && y.label].filter(Boolean);
  const count = (several) => new Set(several.map((point) => rows[point.at].model)).size;
  const severalModels = count(points) > 1 && together.every((group) => count(group) === 1);
  byId("scatter-hint").textContent = [
    say(words.points, { shown: points.length }),
    isRanked ? words.ranked : "",
    together.length ? "" : words.no_front,
    !isRanked && points.some((point) => point.dominated) ? words.beaten : "",
    joined.length > 1 ? words.fronts : "",
    severalModels && !(x.relative && y.relative) ? words.several : "",
    logs.length ? say(words.log, { axes: logs.join("; ") }) : "",
    words.keys,
  ].filter(Boolean).join(" ");
}

// A point that is worse than another by no more than noise is on the front, but off the line.

function onLine(front, x, y) {
  const ahead = (axis, one, other) => (axis.greater ? one - other : other - one);
  const beats = (one, other) => {
    const leads = [ahead(x, one.x, other.x), ahead(y, one.y, other.y)];
    return leads.every((lead) => lead >= 0) && leads.some((lead) => lead > 0);
  };
  return front.filter((point) => !front.some((other) => beats(other, point)));
}

function steps(points, x, y) {
  const line = [...points].sort((a, b) => a.px - b.px || a.py - b.py);
  let path = "";
  line.forEach((point, at) => {
    if (at) {
      const before = line[at - 1];
      const cornerX = x.greater ? Math.min(before.px, point.px) : Math.max(before.px, point.px);
      const cornerY = y.greater ? Math.max(before.py, point.py) : Math.min(before.py, point.py);
      path += `L${cornerX} ${cornerY}`;
    }
    path += `${at ? "L" : "M"}${point.px} ${point.py}`;
  });
  return path;
}

function drawAxes(svg, across, along, x, y, titles, width, height, edge) {
  for (const tick of across.ticks) {
    const at = across.place(tick);
    svg.append(draw("line", { class: "grid", x1: at, x2: at, y1: edge.top, y2: height - edge.bottom }));
    svg.append(draw("text", { x: at, y: height - edge.bottom + 17, "text-anchor": "middle" }, written(tick, x)));
  }
  for (const tick of along.ticks) {
    const at = along.place(tick);
    svg.append(draw("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: at, y2: at }));
    svg.append(draw("text", { x: edge.left - 7, y: at + 4, "text-anchor": "end" }, written(tick, y)));
  }
  titles[0].forEach((text, at) => {
    const y = height - 8 - 15 * (titles[0].length - 1 - at);
    svg.append(draw("text", { class: "title", x: width - edge.right, y, "text-anchor": "end" }, text));
  });
  titles[1].forEach((text, at) => svg.append(draw("text", { class: "title", x: 4, y: 13 + 15 * at }, text)));
}

// Return the colour and shape of each row, and the names for the legend, the original's first.

function looks(points) {
  const key = colourSelect.value;
  const originals = new Set(points.filter(({ at }) => rows[at].original).map(({ at }) => rows[at][key]));
  const isFirst = (name) => key === "method" && originals.has(name);
  const names = [...new Set(points.map(({ at }) => rows[at][key]))]
    .sort((a, b) => isFirst(b) - isFirst(a) || collator.compare(a, b));
  const places = new Map(names.map((name, at) => [name, at]));
  const of = (name) => [`k${places.get(name) % COLOURS}`, SHAPES[places.get(name) % SHAPES.length]];
  const label = (name) => (key === "method" ? rows.find((row) => row.method === name).method_label : name) || words.none;
  return { names, of, label, ofRow: (row) => of(row[key]) };
}

function drawPoints(svg, points, look, width) {
  points.sort((a, b) => a.px - b.px);
  const marks = points.map((point, order) => {
    const row = rows[point.at];
    const [colour, shape] = look.ofRow(row);
    const mark = draw("path", {
      class: `point ${colour} ${point.dominated ? "hollow" : "full"}`,
      d: shapePath(shape, RADIUS),
      transform: `translate(${point.px} ${point.py})`,
      tabindex: order ? -1 : 0,
      role: "img",
      "aria-label": point.text.replaceAll("\n", ", "),
    });
    const show = () => showTip(point, points, width);
    const hide = () => { tip.hidden = true; };
    for (const event of ["pointerenter", "focus"]) mark.addEventListener(event, show);
    for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, hide);
    // A finger can't hover: a tap shows the tooltip and does not move the page.
    mark.addEventListener("click", (event) => (event.pointerType === "touch" ? show() : findLine(point.at)));
    if (row.original || row.by_hand) {
      const ring = row.by_hand ? "ring by-hand" : "ring";
      svg.append(draw("circle", { class: ring, cx: point.px, cy: point.py, r: 11 }));
    }
    return mark;
  });
  // Draw beaten points below the others.
  svg.append(...marks.filter((_, at) => points[at].dominated), ...marks.filter((_, at) => !points[at].dominated));
  marks.forEach((mark, order) => mark.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") tip.hidden = true;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      findLine(points[order].at);
    }
    if (!step || !marks[order + step]) return;
    event.preventDefault();
    mark.setAttribute("tabindex", -1);
    marks[order + step].setAttribute("tabindex", 0);
    marks[order + step].focus();
  }));
}

function drawLegend(points, look, hasLine) {
  const item = (text, ...marks) => {
    const icon = draw("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" }, ...marks);
    byId("scatter-legend").append(make("li", {}, icon, make("span", {}, ...breakable(text))));
  };
  for (const name of look.names) {
    const [colour, shape] = look.of(name);
    item(look.label(name), draw("path", { class: `point ${colour} full`, d: shapePath(shape, RADIUS) }));
  }
  const circle = (attributes) => draw("circle", { r: 5.5, ...attributes });
  if (points.some(({ at }) => rows[at].original)) item(words.original, circle({ class: "ring", r: 7.5 }));
  if (points.some(({ at }) => rows[at].by_hand)) item(words.by_hand, circle({ class: "ring by-hand", r: 7.5 }));
  if (hasLine) item(words.front, draw("line", { class: "front", x1: -9, x2: 9, y1: 0, y2: 0 }));
  if (points.some((point) => point.dominated)) item(words.hollow, circle({ class: "point k5 hollow" }));
}
