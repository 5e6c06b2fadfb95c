"use strict";
// Sorting, filters and charts for the table, which is complete without them. No text ever becomes markup here: names
// go into the page as text nodes and attributes only.
(() => {
  const { words, rows, metrics, start, ranked, verdicts } = JSON.parse(document.getElementById("data").textContent);
  const table = document.querySelector("table");
  const body = table.tBodies[0];
  const lines = [...body.rows].filter((line) => line.dataset.row !== undefined);
  const byId = (id) => document.getElementById(id);
  const collator = new Intl.Collator(document.documentElement.lang, { numeric: true });
  const COLOURS = 8;
  const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "drop", "star"];
  const CHARACTER = 7.4; // pixels, of a tick's label
  const MOST_BARS = 60;
  const MOST_LINES = 200; // laying out thousands of lines takes a second each time
  let mostLines = MOST_LINES;
  let sorted = lines;
  let shown = rows.map(() => true);

  // Elements

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function draw(tag, attributes = {}, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function say(sentence, values) {
    return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }

  function choice(label, options, chosen, onChange) {
    const select = make("select");
    for (const [value, text] of options) select.append(make("option", { value }, text));
    if (chosen !== undefined) select.value = chosen;
    select.addEventListener("change", onChange);
    return [make("label", {}, label, select), select];
  }

  function distinct(key) {
    return [...new Set(rows.map((row) => row[key]))].sort(collator.compare);
  }

  // Light and dark

  const themes = ["auto", "light", "dark"];
  const themeButton = byId("theme");

  function setTheme(theme) {
    document.documentElement.style.colorScheme = theme === "auto" ? "" : theme;
    themeButton.dataset.theme = theme;
    for (const name of ["title", "aria-label"]) themeButton.setAttribute(name, words.themes[theme]);
  }

  themeButton.addEventListener("click", () => {
    setTheme(themes[(themes.indexOf(themeButton.dataset.theme) + 1) % themes.length]);
  });
  setTheme(themes.includes(location.hash.slice(1)) ? location.hash.slice(1) : "auto");
  themeButton.hidden = false;

  // Sorting: by what the cells say in data-value, or by their text; what is missing comes last

  function compare(one, other, at, sign) {
    const [a, b] = [one.cells[at], other.cells[at]];
    const [missingA, missingB] = [a.dataset.missing !== undefined, b.dataset.missing !== undefined];
    if (missingA || missingB) return missingA - missingB;
    if (a.dataset.value === undefined) return sign * collator.compare(a.textContent, b.textContent);
    return collator.compare(a.dataset.group ?? "", b.dataset.group ?? "") || sign * (a.dataset.value - b.dataset.value);
  }

  function sortBy(header) {
    const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    sorted = [...lines].sort((a, b) => compare(a, b, header.cellIndex, sign) || a.dataset.row - b.dataset.row);
    showLines();
    body.append(...sorted);
  }

  for (const header of table.tHead.rows[0].cells) {
    const button = make("button", { type: "button", title: words.sort }, header.textContent);
    button.addEventListener("click", () => sortBy(header));
    header.replaceChildren(button);
    header.setAttribute("aria-sort", "none");
  }

  // Filters

  const more = make("button", { type: "button", id: "more" });
  document.querySelector(".scroll").after(more);
  more.addEventListener("click", () => {
    mostLines = Infinity;
    showLines();
  });

  function showLines() {
    let left = mostLines;
    for (const line of sorted) {
      const hidden = !shown[line.dataset.row] || left-- <= 0;
      if (line.hidden !== hidden) line.hidden = hidden;
    }
    const count = shown.filter(Boolean).length;
    more.hidden = count <= mostLines;
    more.textContent = say(words.more, { shown: mostLines, all: count });
    byId("count").textContent = say(words.count, { shown: count, all: rows.length });
  }

  const search = make("input", { type: "search", autocomplete: "off" });
  const kinds = ["team", "model", "method", "hardware"].filter((kind) => distinct(kind).length > 1);
  const selects = {};
  const haystacks = lines.map((line) => line.textContent.toLowerCase());

  byId("choices").append(make("label", {}, words.search, search));
  for (const kind of kinds) {
    const options = [["", words.all], ...distinct(kind).map((name, at) => [at + 1, name || words.none])];
    const [label, select] = choice(words[kind], options, "", filter);
    select.names = distinct(kind);
    selects[kind] = select;
    byId("choices").append(label);
  }
  const reset = make("button", { type: "button" }, words.reset);
  byId("choices").append(reset);
  search.addEventListener("input", filter);
  byId("choices").parentElement.addEventListener("submit", (event) => event.preventDefault());
  reset.addEventListener("click", () => {
    search.value = "";
    for (const select of Object.values(selects)) select.value = "";
    filter();
  });

  function filter() {
    const asked = search.value.trim().toLowerCase().split(/\s+/);
    const wanted = Object.entries(selects)
      .filter(([, select]) => select.value !== "")
      .map(([kind, select]) => [kind, select.names[select.value - 1]]);
    shown = rows.map((row, at) => (
      wanted.every(([kind, name]) => row[kind] === name) && asked.every((word) => haystacks[at].includes(word))
    ));
    showLines();
    if (metrics.length) requestAnimationFrame(drawCharts);
  }

  // What is drawn: an axis is a metric, as it is or against the original

  function axisOf(value) {
    const metric = metrics[parseInt(value, 10)];
    const relative = value.endsWith("r");
    return {
      value,
      at: parseInt(value, 10),
      relative,
      group: metric.group,
      label: relative ? metric.relative_label : metric.label,
      greater: metric.greater_is_better,
      values: relative ? metric.relative : metric.values,
      isRatio: relative && metric.group !== "quality",
    };
  }

  function axisOptions(select) {
    const kinds = [
      [words.as_measured, metrics.map((metric, at) => [String(at), metric.label])],
      [words.against, metrics.flatMap((metric, at) => (metric.relative ? [[`${at}r`, metric.relative_label]] : []))],
    ];
    for (const [label, options] of kinds) {
      if (!options.length) continue;
      const group = make("optgroup", { label });
      for (const [value, text] of options) group.append(make("option", { value }, text));
      select.append(group);
    }
  }

  function axisChoice(label, chosen) {
    const [box, select] = choice(label, [], undefined, drawScatter);
    axisOptions(select);
    select.value = chosen;
    return [box, select];
  }

  const [xBox, xSelect] = axisChoice(words.x, start.x);
  const [yBox, ySelect] = axisChoice(words.y, start.y);
  const models = distinct("model");
  const modelOptions = [["", words.all], ...models.map((name, at) => [String(at), name || words.none])];
  const [modelBox, modelSelect] = choice(words.model, modelOptions, "", drawScatter);
  const colourOptions = [["method", words.method], ["model", words.model], ["team", words.team]];
  const [colourBox, colourSelect] = choice(words.colour, colourOptions, start.colour, drawScatter);
  byId("scatter-controls").append(xBox, yBox, ...(models.length > 1 ? [modelBox] : []), colourBox);

  function round(value) {
    return String(Number(value.toPrecision(4)));
  }

  function written(value, axis) {
    return round(value) + (axis.isRatio ? "x" : "");
  }

  // `room` says how many pixels a tick's label needs along the axis

  function scale(values, from, to, axis, room) {
    let low = Math.min(...values);
    let high = Math.max(...values);
    const log = low > 0 && high / low > (axis.isRatio ? 5 : 20);
    if (log) {
      const pad = (high / low) ** 0.06;
      [low, high] = [low / pad, high * pad];
    } else {
      const pad = (high - low || Math.abs(high) || 1) * 0.07;
      [low, high] = [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
    }
    const share = (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
    const place = (value) => from + share(value) * (to - from);
    const choices = log ? logTicks(low, high) : [7, 6, 5, 4, 3, 2].map((count) => evenTicks(low, high, count));
    const ticks = choices.find((some) => some.length > 1 && areApart(some, place, axis, room)) ?? choices.at(-1).slice(0, 1);
    return { log, ticks, place };
  }

  function areApart(ticks, place, axis, room) {
    return ticks.every((tick, at) => {
      if (!at) return true;
      const needed = (room(written(tick, axis)) + room(written(ticks[at - 1], axis))) / 2;
      return Math.abs(place(tick) - place(ticks[at - 1])) >= needed;
    });
  }

  function evenTicks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    const ticks = [];
    for (let at = Math.ceil(low / step); at * step <= high; at++) ticks.push(at * step);
    return ticks;
  }

  // From the most ticks to the fewest: three in each power of ten, one, and one in several

  function logTicks(low, high) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const powers = Array.from({ length: last - first + 1 }, (_, at) => first + at);
    const choices = [[1, 2, 5], [1, 3]].map((factors) => powers.flatMap((power) => factors.map((each) => each * 10 ** power)));
    for (const stride of [1, 2, 3, 4, 6, 9]) {
      choices.push(powers.filter((power) => power % stride === 0).map((power) => 10 ** power));
    }
    return choices.map((ticks) => ticks.filter((tick) => tick >= low && tick <= high)).filter((ticks) => ticks.length);
  }

  function wrap(text, most) {
    const wrapped = [];
    for (const word of text.split(" ")) {
      const longer = `${wrapped.at(-1) ?? ""} ${word}`.trim();
      if (wrapped.length && longer.length <= most) wrapped[wrapped.length - 1] = longer;
      else wrapped.push(word);
    }
    return wrapped;
  }

  function direction(axis) {
    return axis.greater === null ? "" : ` (${axis.greater ? words.higher : words.lower})`;
  }

  // The points of each group of rows that may be compared. Which are beaten is said by the data, over all rows

  function groups(points, x, y) {
    const judged = verdicts[`${x.value}|${y.value}`] ?? verdicts[`${y.value}|${x.value}`] ?? [];
    const found = new Map();
    for (const point of points) {
      const verdict = judged[point.at] ?? null;
      if (verdict === null) continue;
      point.dominated = verdict < 0;
      const group = verdict < 0 ? -1 - verdict : verdict;
      if (!found.has(group)) found.set(group, []);
      found.get(group).push(point);
    }
    return [...found.values()];
  }

  // The scatter

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

  // How sure a ratio is

  function within(at, axis) {
    const metric = metrics[axis.at];
    if (!axis.isRatio || metric.told_apart[at] === undefined) return "";
    const ends = metric.intervals[at];
    if (ends) return ` (${say(words.interval, { low: written(ends[0], axis), high: written(ends[1], axis) })})`;
    return metric.told_apart[at] === null ? ` (${words.noise_unknown})` : "";
  }

  const tip = make("div", { id: "tip", hidden: "" });

  function showTip(point, text, width) {
    tip.textContent = text;
    tip.hidden = false;
    tip.style.top = `${point.py + 14}px`;
    tip.style.left = point.px < width / 2 ? `${point.px + 12}px` : "";
    tip.style.right = point.px < width / 2 ? "" : `${width - point.px + 12}px`;
  }

  function findLine(at) {
    for (const line of lines) line.classList.toggle("found", line === lines[at]);
    lines[at].hidden = false;
    lines[at].scrollIntoView({ block: "center", behavior: "smooth" });
  }

  function drawScatter() {
    const box = byId("scatter");
    const [x, y] = [axisOf(xSelect.value), axisOf(ySelect.value)];
    const model = modelSelect.value === "" ? undefined : models[modelSelect.value];
    const points = [];
    rows.forEach((row, at) => {
      const [px, py] = [x.values[at], y.values[at]];
      const isAsked = shown[at] && (model === undefined || row.model === model);
      if (isAsked && px !== null && py !== null) points.push({ at, x: px, y: py });
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
    const joined = fronts.filter((front) => front.length > 1);
    for (const front of joined) svg.append(draw("path", { class: "front", d: steps(front, x, y) }));
    drawPoints(svg, points, x, y, width, isRanked);
    box.replaceChildren(svg, tip);
    tip.hidden = true;
    const logs = [across.log && x.label, along.log && y.label].filter(Boolean);
    const count = (several) => new Set(several.map((point) => rows[point.at].model)).size;
    const severalModels = count(points) > 1 && together.every((group) => count(group) === 1);
    byId("scatter-hint").textContent = [
      say(words.points, { shown: points.length }),
      isRanked ? words.ranked : "",
      !together.length ? words.no_front : joined.length ? words.front : "",
      joined.length > 1 ? words.fronts : "",
      severalModels && !(x.relative && y.relative) ? words.several : "",
      logs.length ? say(words.log, { axes: logs.join("; ") }) : "",
      words.keys,
    ].filter(Boolean).join(" ");
  }

  function steps(front, x, y) {
    const line = [...front].sort((a, b) => a.px - b.px || a.py - b.py);
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

  function drawPoints(svg, points, x, y, width, isRanked) {
    const key = colourSelect.value;
    const names = [...new Set(points.map((point) => rows[point.at][key]))].sort(collator.compare);
    const places = new Map(names.map((name, at) => [name, at]));
    const look = (name) => [`k${places.get(name) % COLOURS}`, SHAPES[places.get(name) % SHAPES.length]];
    points.sort((a, b) => a.px - b.px);
    const marks = points.map((point, order) => {
      const row = rows[point.at];
      const [colour, shape] = look(row[key]);
      const text = describe(point, x, y, isRanked);
      const mark = draw("path", {
        class: `point ${colour} ${point.dominated ? "hollow" : "full"}`,
        d: shapePath(shape, 6),
        transform: `translate(${point.px} ${point.py})`,
        tabindex: order ? -1 : 0,
        role: "img",
        "aria-label": text.replaceAll("\n", ", "),
      });
      mark.append(draw("title", {}, text));
      mark.addEventListener("pointerenter", () => showTip(point, text, width));
      mark.addEventListener("focus", () => showTip(point, text, width));
      mark.addEventListener("pointerleave", () => { tip.hidden = true; });
      mark.addEventListener("blur", () => { tip.hidden = true; });
      mark.addEventListener("click", () => findLine(point.at));
      if (row.original || row.by_hand) {
        const ring = row.by_hand ? "ring by-hand" : "ring";
        svg.append(draw("circle", { class: ring, cx: point.px, cy: point.py, r: 11 }));
      }
      svg.append(mark);
      return mark;
    });
    marks.forEach((mark, order) => mark.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
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
    const legend = byId("scatter-legend");
    const item = (text, ...marks) => {
      const icon = draw("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" }, ...marks);
      legend.append(make("li", {}, icon, text));
    };
    for (const name of names) {
      const [colour, shape] = look(name);
      item((key === "method" ? rows.find((row) => row.method === name).method_label : name) || words.none,
        draw("path", { class: `point ${colour} full`, d: shapePath(shape, 6) }));
    }
    const circle = (attributes) => draw("circle", { r: 5.5, ...attributes });
    if (points.some((point) => rows[point.at].original)) item(words.original, circle({ class: "ring", r: 7.5 }));
    const hollow = points.find((point) => point.dominated);
    if (hollow) item(verdict(hollow, isRanked), circle({ class: "point k5 hollow" }));
    if (points.some((point) => rows[point.at].by_hand)) item(words.by_hand, circle({ class: "ring by-hand", r: 7.5 }));
  }

  // The bars: each row's ratio, to the left or right of its original

  const ratios = metrics
    .map((metric, at) => [String(at), metric.label])
    .filter(([at]) => metrics[at].relative && metrics[at].group !== "quality");
  const [barBox, barSelect] = choice(words.metric, ratios, start.bars, drawBars);
  byId("bars-controls").append(barBox);

  function drawBars() {
    const box = byId("bars");
    const metric = metrics[barSelect.value];
    const found = metric ? rows.map((row, at) => ({ row, at, ratio: metric.relative[at], ends: metric.intervals[at] }))
      .filter(({ row, at, ratio }) => shown[at] && !row.original && ratio > 0) : [];
    const drawn = found.slice(0, MOST_BARS);
    if (!drawn.length) {
      box.replaceChildren(make("p", { class: "hint" }, words.no_bars));
      byId("bars-hint").textContent = "";
      return;
    }
    const low = Math.min(0.8, ...drawn.map(({ ratio }) => ratio)) / 1.08;
    const high = Math.max(1.25, ...drawn.map(({ ratio }) => ratio)) * 1.08;
    const place = (ratio) => (100 * Math.log(Math.min(high, Math.max(low, ratio)) / low)) / Math.log(high / low);
    const teams = new Set(drawn.map(({ row }) => row.team)).size > 1;
    box.replaceChildren(barScale(low, high, place));
    spread(box.querySelectorAll(".scale .track span"));
    for (const name of new Set(drawn.map(({ row }) => row.model))) {
      const list = make("ol");
      for (const each of drawn.filter(({ row }) => row.model === name)) list.append(barOf(each, metric, place, teams));
      box.append(make("h3", {}, name || words.none), list);
    }
    byId("bars-hint").textContent = [
      metric.greater_is_better === null ? "" : `${metric.label}${direction({ greater: metric.greater_is_better })}.`,
      words.bars,
      drawn.some(({ ends }) => ends) ? words.between : "",
      drawn.some(({ at }) => metric.told_apart[at] === null) ? words.grey : "",
      found.length > drawn.length ? say(words.left_out, { count: found.length - drawn.length }) : "",
    ].filter(Boolean).join(" ");
  }

  function barScale(low, high, place) {
    const track = make("span", { class: "track" });
    const most = Math.ceil(Math.log2(high / low));
    const powers = [0];
    for (let power = 1; power <= most; power++) powers.push(-power, power); // from 1x outwards
    for (const power of powers.filter((each) => place(2 ** each) > 2 && place(2 ** each) < 98)) {
      const mark = make("span", {}, `${Number((2 ** power).toPrecision(2))}x`);
      mark.style.left = `${place(2 ** power)}%`;
      track.append(mark);
    }
    return make("div", { class: "bar scale", "aria-hidden": "true" }, make("span"), track, make("span"));
  }

  function spread(marks) {
    const kept = [];
    for (const mark of marks) {
      const box = mark.getBoundingClientRect();
      if (kept.some((other) => box.left < other.right + 8 && other.left < box.right + 8)) mark.remove();
      else kept.push(box);
    }
  }

  function barOf({ row, at, ratio, ends }, metric, place, teams) {
    const told = metric.told_apart[at]; // null: its noise is not known
    const noise = told === false;
    const judged = metric.greater_is_better !== null && told !== null && ratio.toFixed(2) !== "1.00";
    const verdict = judged ? ((ratio > 1) === metric.greater_is_better ? "better" : "worse") : "";
    const fill = make("span", { class: `fill ${noise ? "noise" : ""} ${told === null ? "unknown" : verdict}` });
    fill.style.left = `${Math.min(place(1), place(ratio))}%`;
    fill.style.width = `${Math.abs(place(ratio) - place(1))}%`;
    const one = make("span", { class: "one" });
    one.style.left = `${place(1)}%`;
    const track = make("span", { class: "track", "aria-hidden": "true" }, fill, one);
    if (ends) {
      const between = make("span", { class: "between" });
      between.style.left = `${place(ends[0])}%`;
      between.style.width = `${place(ends[1]) - place(ends[0])}%`;
      track.append(between);
    }
    const name = teams ? `${row.label} · ${row.team || words.none}` : row.label;
    const digits = ratio >= 0.1 ? ratio.toFixed(2) : String(Number(ratio.toPrecision(2)));
    const text = `${noise ? "≈" : ""}${ratio >= 100 ? round(ratio) : digits}x`;
    return make("li", { class: "bar" }, make("span", {}, name), track, make("span", {}, text));
  }

  addEventListener("beforeprint", () => {
    mostLines = Infinity;
    showLines();
  });

  function drawCharts() {
    drawScatter();
    drawBars();
  }

  const isNarrow = matchMedia("(max-width: 40rem)").matches;
  byId("filters").hidden = byId("count").hidden = rows.length < 2;
  byId("filters").open = !isNarrow;
  if (isNarrow) (document.querySelector(".notes") ?? byId("table")).after(byId("charts")); // numbers come first
  byId("charts").hidden = !metrics.length;
  showLines();
  if (metrics.length) {
    drawCharts();
    let width = byId("charts").clientWidth;
    new ResizeObserver(() => {
      if (width === byId("charts").clientWidth) return;
      width = byId("charts").clientWidth;
      requestAnimationFrame(drawCharts);
    }).observe(byId("charts"));
  }
})();
