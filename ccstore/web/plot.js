// Plots: a wrapper round uPlot that follows theme and width, and a heat map of components on a canvas.

import { el, heat, short } from "./dom.js";

const PALETTE = ["#1f6feb", "#d4483b", "#2da44e", "#d4a72c", "#8250df", "#1b9e9e", "#d4619a", "#7a7f87"];

/** A line plot; `put` shows new columns. At most `legend` names are listed. */
export class Plot {
  constructor(parent, { names, height = 170, unit = "" }) {
    this.parent = parent;
    this.names = names;
    this.unit = unit;
    this.height = height;
    this.data = [[], ...names.map(() => [])];
    this.observer = new ResizeObserver(() => this.plot?.setSize({ width: this.width(), height }));
    this.restyle = () => { this.make(); };
    addEventListener("theme", this.restyle);
    this.observer.observe(parent);
    this.make();
  }

  width() { return Math.max(this.parent.clientWidth, 120); }

  make() {
    this.plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const axis = {
      stroke: style.getPropertyValue("--quiet"), grid: { stroke: style.getPropertyValue("--line"), width: 1 },
      ticks: { stroke: style.getPropertyValue("--line"), width: 1 }, font: "11px system-ui",
    };
    const many = this.names.length > PALETTE.length;
    this.plot = new window.uPlot({
      width: this.width(), height: this.height, legend: { show: !many }, cursor: { drag: { x: true, y: false } },
      axes: [{ ...axis }, { ...axis, size: 58, values: (_, ticks) => ticks.map((value) => short(value)) }],
      scales: { x: { range: (_, min, max) => (min === max ? [(max ?? Date.now() / 1000) - 60, max ?? Date.now() / 1000] : [min, max]) }, y: { range: (_, min, max) => (min === null ? [0, 1] : [Math.min(0, min), max > 0 ? max * 1.08 : 1]) } },
      series: [{}, ...this.names.map((label, i) => ({
        label, width: many ? 1 : 1.5, spanGaps: false, alpha: many ? 0.6 : 1, points: { show: false },
        stroke: PALETTE[i % PALETTE.length], value: (_, value) => (value === null ? "–" : `${short(value)}${this.unit}`),
      }))],
    }, this.data, this.parent);
  }

  put(data) {
    this.data = data;
    this.plot.setData(data);
  }

  close() {
    removeEventListener("theme", this.restyle);
    this.observer.disconnect();
    this.plot.destroy();
  }
}

/** Components as rows, time to the right, colour by value. */
export class HeatMap {
  constructor(parent, { label }) {
    this.canvas = el("canvas.heat", { role: "img", "aria-label": label });
    this.note = el("small.quiet");
    parent.append(this.canvas, this.note);
  }

  put([times, ...rows], names, unit) {
    const { canvas } = this;
    canvas.width = Math.max(times.length, 1);
    canvas.height = Math.max(rows.length, 1);
    let low = 0, high = 0;
    for (const row of rows) for (const value of row) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
    const paint = canvas.getContext("2d");
    rows.forEach((row, y) => row.forEach((value, x) => {
      if (value === null) return;
      paint.fillStyle = heat(high > low ? (value - low) / (high - low) : 0);
      paint.fillRect(x, y, 1, 1);
    }));
    this.note.textContent = rows.length
      ? `${rows.length} rows from ${names[0]} (top) to ${names[names.length - 1]}, ${short(low)} to ${short(high)} ${unit}`
      : "no components";
  }

  close() { this.canvas.remove(); this.note.remove(); }
}
