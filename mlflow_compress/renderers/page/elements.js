// What all parts of the script share: the data, and functions that create elements. Text never becomes markup here:
// names enter the page only as text nodes and attributes.

const { words, rows, metrics, start, ranked, verdicts } = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const collator = new Intl.Collator(document.documentElement.lang, { numeric: true });
let shown = rows.map(() => true); // the rows that pass the filters

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

// A long chain of methods may break after each part.

function breakable(text) {
  return text.split(/(?<=[+:,])(?=\S)/).flatMap((part, at) => (at ? [make("wbr"), part] : [part]));
}

function distinct(key) {
  return [...new Set(rows.map((row) => row[key]))].sort(collator.compare);
}
