// The bars: the ratio of each row, to the left or right of its original.

const MOST_BARS = 60;

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
  const low = Math.min(0.5, ...drawn.map(({ ratio }) => ratio)) / 1.08;
  const high = Math.max(1.25, ...drawn.map(({ ratio }) => ratio)) * 1.08;
  const place = (ratio) => (100 * Math.log(Math.min(high, Math.max(low, ratio)) / low)) / Math.log(high / low);
  const teams = new Set(drawn.map(({ row }) => row.team)).size > 1;
  box.replaceChildren(barScale(low, high, place));
  spread(box.querySelectorAll(".scale .track span"));
  for (const name of new Set(drawn.map(({ row }) => row.model))) {
    const list = make("ol");
    for (const bar of drawn.filter(({ row }) => row.model === name)) list.append(barOf(bar, metric, place, teams));
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
  for (const power of powers.filter((candidate) => place(2 ** candidate) > 2 && place(2 ** candidate) < 98)) {
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
  const apart = metric.told_apart[at]; // null: the noise is unknown
  const noise = apart === false;
  const judged = metric.greater_is_better !== null && apart && ratio.toFixed(2) !== "1.00";
  const verdict = judged ? ((ratio > 1) === metric.greater_is_better ? "better" : "worse") : "";
  const fill = make("span", { class: `fill ${noise ? "noise" : ""} ${apart === null ? "unknown" : verdict}` });
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
  const name = teams ? `${row.label}\u00a0· ${row.team || words.none}` : row.label;
  const digits = ratio >= 0.1 ? ratio.toFixed(2) : String(Number(ratio.toPrecision(2)));
  const text = `${noise ? "≈" : ""}${ratio >= 100 ? round(ratio) : digits}x`;
  return make("li", { class: "bar" }, make("span", {}, ...breakable(name)), track, make("span", {}, text));
}
