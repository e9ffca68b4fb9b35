// Draws the page's charts with Vega-Lite from the data in #charts, and again when the reader chooses something.
// It only replaces a specification's placeholders ("$x"); Vega-Lite does the drawing.
"use strict";
const page = JSON.parse(document.getElementById("charts").textContent);
const state = {
  axis: page.axis, smoothing: page.smoothing, range: 1, colour: page.colour, logs: new Set(page.logs), hidden: new Set(),
};
const views = new Map();

// The value of a placeholder; undefined for any other text.
function placeholder(text, name, width) {
  const [kind, rest] = text.split(":");
  const axis = page.axes[state.axis];
  const colours = page.colours[state.colour];
  const narrow = width < 560;
  switch (kind) {
    case "$x": return state.axis;
    case "$x_stop": return state.axis + "_stop";
    case "$baseline_start": return `max(datum.begin, ${axis.most * (1 - state.range)})`;
    case "$x_title": return axis.title;
    case "$x_format": return axis.format;
    case "$x_scale": return state.logs.has("x") ? { type: "log", nice: false, padding: 8 } : { nice: false, zero: false, padding: 8 };
    case "$from": return axis.most * (1 - state.range);
    case "$y": return page.charts[rest].scales[state.logs.has(rest) ? "log" : "linear"];
    case "$smooth": return rest + "_" + state.smoothing;
    case "$perplexity": return `exp(datum.${rest}_${state.smoothing})`;
    case "$table": return { name: rest };
    case "$hidden": return [...state.hidden];
    case "$colour": return colours.field;
    case "$domain": return colours.domain;
    case "$range": return colours.range;
    case "$dot_range": return colours.dots;
    case "$dot_size": return page.runs > 8 ? 14 : page.runs > 1 ? 30 : 55;
    case "$line": return page.runs > 8 ? 1.4 : 2;
    case "$legend":
      if (name !== "loss" || page.runs === 1 || colours.domain.length > 12) return null;
      return { title: null, columns: narrow ? 1 : 4, symbolType: "stroke", symbolStrokeWidth: 3 };
    case "$dash": return colours.field;
    case "$dashes": return { domain: colours.domain, range: colours.dashes };
    case "$width": return width;
    case "$height": return page.charts[name].height * (narrow && !page.charts[name].fixed ? 0.8 : 1);
    case "$label_limit": return Math.max(90, width * (narrow ? 0.34 : 0.3));
  }
}

// A table's rows; numbers come column by column, which is shorter. Fresh objects: Vega keeps notes in them.
function rows(table) {
  if (table.rows) return table.rows.map((row) => ({ ...row }));
  const columns = Object.entries(table.columns);
  return columns[0][1].map((_, index) => Object.fromEntries(columns.map(([name, values]) => [name, values[index]])));
}

function fill(node, name, width) {
  if (typeof node === "string" && node.startsWith("$")) return placeholder(node, name, width);
  if (Array.isArray(node)) return node.map((item) => fill(item, name, width));
  if (node === null || typeof node !== "object") return node;
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, fill(value, name, width)]));
}

async function draw(element) {
  const name = element.dataset.chart;
  const main = document.querySelector("main");
  const padding = parseFloat(getComputedStyle(main).paddingLeft) * 2;
  const width = element.clientWidth || main.clientWidth - padding; // one in a closed <details> has no width of its own
  const spec = fill(page.charts[name].spec, name, width);
  spec.datasets = Object.fromEntries(page.charts[name].tables.map((table) => [table, rows(page.tables[table])]));
  views.get(element)?.finalize();
  views.set(element, await vegaEmbed(element, spec, {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, hover: false, tooltip: { theme: "page" },
  }));
}

// One chart after the other, those in sight first; a newer choice ends the drawing of an older one.
let drawing = Promise.resolve(), wanted = 0;
function drawAll() {
  const turn = ++wanted;
  const far = (element) => Math.abs(element.getBoundingClientRect().top + element.clientHeight / 2 - window.innerHeight / 2);
  drawing = drawing.then(async () => {
    const elements = [...document.querySelectorAll("[data-chart]")].sort((one, other) => far(one) - far(other));
    for (const element of elements) if (turn === wanted) await draw(element);
    document.documentElement.dataset.drawn = "yes";
  }).catch((error) => console.error(error));
}

function recolour() {
  const colours = page.colours[state.colour];
  document.querySelectorAll("[data-swatch]").forEach((swatch) => {
    swatch.style.background = colours.of_run[Number(swatch.dataset.swatch)];
  });
}

document.addEventListener("change", ({ target }) => {
  const { control, run, log, group } = target.dataset;
  if (control) {
    state[control] = target.type === "range" || control === "range" ? Number(target.value) : target.value;
    if (control === "smoothing") target.nextElementSibling.textContent = page.levels[state.smoothing];
    if (control === "colour") recolour();
  } else if (log) {
    state.logs[target.checked ? "add" : "delete"](log);
    const element = document.querySelector(`[data-chart="${log}"]`);
    if (element) {
      drawing = drawing.then(() => draw(element)).catch((error) => console.error(error));
      return;
    }
  } else if (run) {
    state.hidden[target.checked ? "delete" : "add"](Number(run));
  } else if (group) {
    document.querySelectorAll("[data-run]").forEach((box) => {
      box.checked = target.checked;
      state.hidden[target.checked ? "delete" : "add"](Number(box.dataset.run));
    });
  } else return;
  drawAll();
});

let width = window.innerWidth, waiting;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return; // a phone's address bar comes and goes
  width = window.innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});

document.querySelectorAll(".needs-script").forEach((part) => { part.hidden = false; });
drawAll();
