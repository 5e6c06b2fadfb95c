// The table is complete without a script; this script adds sorting and filters.

const table = document.querySelector("table");
const body = table.tBodies[0];
const lines = [...body.rows].filter((line) => line.dataset.row !== undefined);
const MOST_LINES = 200; // layout of thousands of lines takes a second each time
let mostLines = MOST_LINES;
let sorted = lines;

// Sort by data-value, else by the text; cells without a value come last.

function compare(one, other, at, sign) {
  const [a, b] = [one.cells[at], other.cells[at]];
  const [missingA, missingB] = [a.dataset.missing !== undefined, b.dataset.missing !== undefined];
  if (missingA || missingB) return missingA - missingB;
  const [x, y] = [a, b].map((cell) => cell.dataset.value ?? cell.textContent);
  const difference = Number.isNaN(x - y) ? collator.compare(x, y) : x - y;
  return collator.compare(a.dataset.group ?? "", b.dataset.group ?? "") || sign * difference;
}

function sortBy(header) {
  const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  sorted = [...lines].sort((a, b) => compare(a, b, header.cellIndex, sign) || a.dataset.row - b.dataset.row);
  showLines();
  body.append(...sorted);
}

for (const header of table.tHead.rows[0].cells) {
  const title = [header.title, words.sort].filter(Boolean).join(". ");
  const button = make("button", { type: "button", title }, header.textContent);
  button.addEventListener("click", () => sortBy(header));
  header.replaceChildren(button);
  header.setAttribute("aria-sort", "none");
}

for (const mark of body.querySelectorAll(".mark")) mark.title = byId(mark.hash.slice(1)).textContent;

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
  byId("count").textContent = count < rows.length ? say(words.count, { shown: count, all: rows.length }) : "";
}

addEventListener("beforeprint", () => {
  mostLines = Infinity;
  showLines();
});

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

function findLine(at) {
  for (const line of lines) line.classList.toggle("found", line === lines[at]);
  lines[at].hidden = false;
  lines[at].scrollIntoView({ block: "center" });
}

function filter() {
  const terms = search.value.trim().toLowerCase().split(/\s+/);
  const wanted = Object.entries(selects)
    .filter(([, select]) => select.value !== "")
    .map(([kind, select]) => [kind, select.names[select.value - 1]]);
  shown = rows.map((row, at) => (
    wanted.every(([kind, name]) => row[kind] === name) && terms.every((word) => haystacks[at].includes(word))
  ));
  showLines();
  if (metrics.length) requestAnimationFrame(drawCharts);
}
