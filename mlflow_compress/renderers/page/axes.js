// The axes of the scatter: which number each shows, absolute or relative, and where its ticks are.

const CHARACTER = 7.4; // width of a character of a tick label, in pixels

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

function axisChoice(label, chosen) {
  const [box, select] = choice(label, [], undefined, drawScatter);
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
  select.value = chosen;
  return [box, select];
}

const [xBox, xSelect] = axisChoice(words.x, start.x);
const [yBox, ySelect] = axisChoice(words.y, start.y);
const colourOptions = [["method", words.method], ["model", words.model], ["team", words.team]];
const [colourBox, colourSelect] = choice(words.colour, colourOptions, start.colour, drawScatter);
byId("scatter-controls").append(xBox, yBox, colourBox);

function round(value) {
  return String(Number(value.toPrecision(4)));
}

function written(value, axis) {
  return round(value) + (axis.isRatio ? "x" : "");
}

// `room` returns how many pixels a tick label needs along the axis.

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

// From the most ticks to the fewest: three per power of ten, one, and one for several powers.

function logTicks(low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const powers = Array.from({ length: last - first + 1 }, (_, at) => first + at);
  const choices = [[1, 2, 5], [1, 3]].map((factors) => powers.flatMap((power) => factors.map((factor) => factor * 10 ** power)));
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
