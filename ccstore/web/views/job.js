// A job: its nodes' metrics live, one plot a metric with a line for each node, and their statistics.

import { get } from "../api.js";
import { align, Curve, statistics } from "../curves.js";
import { el, heat, moment, short, span } from "../dom.js";
import { Plot } from "../plot.js";
import { live } from "../stream.js";
import { complain } from "./ranges.js";

const WINDOW = 86400; // s of the past at most

export default function open(root, { cluster, jobId }) {
  const view = new Job(root, cluster, Number(jobId));
  view.start().catch((error) => complain(root, error));
  return () => view.close();
}

class Job {
  constructor(root, cluster, jobId) {
    Object.assign(this, { root, cluster, jobId, closed: false, plots: new Map(), curves: new Map() });
  }

  async start() {
    const [job, { metrics }] = await Promise.all([get(`/api/jobs/${this.jobId}/?cluster=${encodeURIComponent(this.cluster)}`), get(`/api/metrics?cluster=${encodeURIComponent(this.cluster)}`)]);
    if (this.closed) return;
    this.job = job;
    this.metrics = metrics;
    this.hosts = job.resources.map((r) => r.hostname);
    this.state = el("b", { role: "status" }, job.jobState);
    this.since = el("span");
    const facts = [["user", job.user], ["project", job.project], ["partition", job.partition], ["state", this.state],
      ["started", moment(job.startTime)], ["for", this.since], ["walltime", job.walltime && span(job.walltime)]];
    this.area = el("div.cards");
    this.table = el("div.card.scroll");
    this.root.append(
      el("div.head", {}, el("h1", {}, `Job ${job.jobId}`), el("span.quiet", {}, `${this.hosts.length} nodes of ${job.cluster}`)),
      el("div.card.head", {},
        el("dl", {}, facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt.quiet", {}, name), el("dd", {}, value)])),
        el("p", {}, this.hosts.slice(0, 64).map((host) => [el("a", { href: `#/node/${encodeURIComponent(job.cluster)}/${encodeURIComponent(host)}` }, host), " "]), this.hosts.length > 64 ? " …" : "")),
      this.area, el("h2", {}, "Statistics"), this.table);
    this.tick();
    this.timer = setInterval(() => this.tick(), 1000);
    this.follow();
  }

  tick() {
    const { job } = this;
    this.since.textContent = span(job.jobState === "running" ? Math.max(Date.now() / 1000 - job.startTime, 0) : job.duration);
  }

  follow() {
    let series = [];
    this.done = live.subscribe({
      job: { cluster: this.cluster, jobId: this.jobId, startTime: this.job.startTime },
      metrics: this.metrics.map((m) => m.name), scope: "node", window: WINDOW,
    }, {
      reset: () => { for (const curves of this.curves.values()) for (const curve of curves.values()) curve.clear(); },
      series: (list) => { series = list; },
      data: (updates) => {
        const touched = new Set();
        for (const { index, times, values } of updates) {
          if (!series[index]) continue;
          const { metric, host } = series[index];
          const curve = this.curve(metric, host);
          times.forEach((time, at) => curve.put(time, values[at]));
          touched.add(metric);
        }
        for (const metric of touched) this.draw(metric);
      },
      ended: ({ state }) => { this.state.textContent = this.job.jobState = state; },
      error: (error) => complain(this.area, error),
    });
  }

  curve(metric, host) {
    if (!this.curves.has(metric)) this.curves.set(metric, new Map());
    const curves = this.curves.get(metric);
    if (!curves.has(host)) curves.set(host, new Curve());
    return curves.get(host);
  }

  draw(metric) {
    const { unit, frequency } = this.metrics.find((m) => m.name === metric);
    const curves = this.curves.get(metric), hosts = [...curves.keys()];
    let plot = this.plots.get(metric);
    if (plot && plot.names.length !== hosts.length) { plot.close(); plot.box.remove(); plot = null; }
    if (!plot) {
      const body = el("div.plot");
      const box = el("section.card.metric", { "data-metric": metric }, el("h2", {}, metric, el("small", {}, unit)), body);
      this.area.append(box);
      plot = new Plot(body, { names: hosts, unit: unit && ` ${unit}` });
      plot.box = box;
      this.plots.set(metric, plot);
    }
    plot.put(align([...curves.values()], frequency));
    this.stale ??= setTimeout(() => { this.stale = null; this.sum(); }, 250);
  }

  /** The table: a row for each node, a column for each metric: its average, coloured within the column. */
  sum() {
    if (this.closed) return;
    const metrics = [...this.curves.keys()].sort();
    const all = metrics.map((metric) => new Map([...this.curves.get(metric)].map(([host, curve]) => [host, statistics(curve)])));
    const high = all.map((column) => Math.max(...[...column.values()].map((s) => s.avg ?? 0), 0));
    const cell = (column, host, at) => {
      const avg = column.get(host)?.avg ?? null;
      const td = el("td.number", {}, short(avg));
      if (avg !== null && high[at]) td.style.boxShadow = `inset 0 -3px 0 ${heat(avg / high[at])}`;
      return td;
    };
    const total = (name, pick) => el("tr", {}, el("th", { scope: "row" }, name), all.map((column) => {
      const values = [...column.values()].filter((s) => s.count).map((s) => s[name]);
      return el("td.number", {}, short(values.length ? pick(values) : null));
    }));
    this.table.replaceChildren(el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "average"), metrics.map((m) => el("th.number", { scope: "col" }, m)))),
      el("tbody", {},
        this.hosts.map((host) => el("tr", {}, el("th", { scope: "row" }, host), all.map((column, at) => cell(column, host, at)))),
        total("min", (v) => Math.min(...v)), total("avg", (v) => v.reduce((a, b) => a + b, 0) / v.length), total("max", (v) => Math.max(...v)))));
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    clearTimeout(this.stale);
    this.done?.();
    for (const plot of this.plots.values()) plot.close();
  }
}
