// What has been received of each series, and how it becomes the columns of a plot.

/** The values of one series by time, ascending. What comes for a time that is known replaces it. */
export class Curve {
  times = [];
  values = [];

  put(time, value) {
    const { times, values } = this;
    let at = times.length;
    while (at > 0 && times[at - 1] >= time) at--;
    if (times[at] === time) values[at] = value;
    else { times.splice(at, 0, time); values.splice(at, 0, value); }
  }

  clear() {
    this.times = [];
    this.values = [];
  }

  /** Forget what is older than a time (s). */
  trim(from) {
    let count = 0;
    while (count < this.times.length && this.times[count] < from) count++;
    if (count) { this.times.splice(0, count); this.values.splice(0, count); }
  }

  /** The newest value that is one, and its time. */
  last() {
    for (let at = this.times.length - 1; at >= 0; at--) {
      if (this.values[at] !== null) return [this.times[at], this.values[at]];
    }
    return [0, null];
  }
}

/** Put curves side by side: [times, values of the first, values of the second, ...], null for none. */
export function align(curves, step) {
  const slots = new Set();
  for (const curve of curves) for (const time of curve.times) slots.add(Math.floor(time / step));
  const times = [...slots].sort((a, b) => a - b);
  const position = new Map(times.map((slot, at) => [slot, at]));
  const columns = curves.map((curve) => {
    const column = new Array(times.length).fill(null);
    curve.times.forEach((time, at) => { column[position.get(Math.floor(time / step))] = curve.values[at]; });
    return column;
  });
  return [times.map((slot) => slot * step), ...columns];
}

/** Statistics of the values of a curve. */
export function statistics(curve) {
  let min = Infinity, max = -Infinity, sum = 0, count = 0;
  for (const value of curve.values) {
    if (value === null) continue;
    min = Math.min(min, value); max = Math.max(max, value); sum += value; count++;
  }
  return count ? { min, max, avg: sum / count, count } : { min: null, max: null, avg: null, count };
}
