// How much of the past a view shows, and how it says that something went wrong.

import { el } from "../dom.js";

export const RANGES = [["10 min", 600], ["1 h", 3600], ["6 h", 21600], ["12 h", 43200], ["1 d", 86400]];

/** Buttons for the ranges; `onchange` gets the seconds. The choice is kept for the next view. */
export function rangeChooser(onchange) {
  const chosen = () => Number(localStorage.getItem("ccstore.range")) || 3600;
  const buttons = RANGES.map(([name, seconds]) => el("button", {
    type: "button", "data-range": seconds, "aria-pressed": String(seconds === chosen()),
    onclick: () => {
      localStorage.setItem("ccstore.range", seconds);
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.range === String(seconds)));
      onchange(seconds);
    },
  }, name));
  return [el("div.chips", { role: "group", "aria-label": "How much of the past" }, buttons), chosen];
}

/** Show an error in a view. */
export function complain(root, error) {
  root.append(el("div.card.problem", { role: "alert" }, error.message));
}

/** Points that a curve of a plot has at most: several times the pixels help nobody. */
export const POINTS = 2000;

/** Seconds between two values so that a range has at most POINTS of a metric's. */
export function resolution(range, step) {
  const factor = Math.ceil(range / step / POINTS);
  return factor > 1 ? factor * step : 0;
}
