// Small helpers for elements, numbers and times; nothing here knows what is shown.

/** Make an element: el("a.quiet", {href: "#/"}, "text", child). Text is always text, never markup. */
export function el(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SUFFIXES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** A number for people: four digits at most, with a suffix. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  for (const [scale, suffix] of SUFFIXES) if (size >= scale) return `${trim(value / scale)} ${suffix}`;
  return trim(value);
}

function trim(value) {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : 4);
}

/** Bytes for people. */
export const bytes = (value) => `${short(value)}B`;

/** Seconds as the largest two units. */
export function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [name, size] = units[first];
  const rest = units[first + 1] && Math.floor((seconds % size) / units[first + 1][1]);
  return `${Math.floor(seconds / size)} ${name}${rest ? ` ${rest} ${units[first + 1][0]}` : ""}`;
}

/** A time (s) as the browser's owner reads times. */
export const moment = (seconds) => new Date(seconds * 1000).toLocaleString();

/** A colour of a scale from 0 to 1, readable on light and dark. */
export function heat(share) {
  const hue = 220 - 200 * Math.min(Math.max(share, 0), 1);
  return `hsl(${hue} 75% ${45 + 8 * Math.sin(share * Math.PI)}%)`;
}
