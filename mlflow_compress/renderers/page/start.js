// The initial state of the page, and when charts are drawn again.

function drawCharts() {
  drawScatter();
  drawBars();
}

const isNarrow = matchMedia("(max-width: 40rem)").matches;
byId("filters").hidden = rows.length < 2;
byId("filters").open = !isNarrow;
if (isNarrow) (document.querySelector(".notes") ?? byId("table")).after(byId("charts")); // numbers come first
byId("charts").hidden = !metrics.length;
byId("bars").closest("section").hidden = !ratios.length;
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
