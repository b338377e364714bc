// A node: its metrics live, and for each metric the components it is made of, as a heat map.

import { get } from "../api.js";
import { align, Curve } from "../curves.js";
import { el, moment, short, span } from "../dom.js";
import { HeatMap, Plot } from "../plot.js";
import { live } from "../stream.js";
import { complain, rangeChooser, resolution } from "./ranges.js";

export default function open(root, { cluster, host }) {
  const view = new Node(root, cluster, host);
  view.start().catch((error) => complain(root, error));
  return () => view.close();
}

class Node {
  constructor(root, cluster, host) {
    Object.assign(this, { root, cluster, host, closed: false, cards: [], closers: [] });
  }

  async start() {
    const [buttons, range] = rangeChooser(() => this.plots());
    this.range = range;
    this.facts = el("dl");
    this.jobs = el("p");
    this.area = el("div.cards");
    this.root.append(
      el("div.head", {}, el("h1", {}, this.host), el("span.quiet", {}, "on ", el("a", { href: `#/cluster/${encodeURIComponent(this.cluster)}` }, this.cluster)), el("span.spring"), buttons),
      el("div.card", {}, this.facts, this.jobs), this.area);
    this.tellState();
    const path = `/api/components?cluster=${encodeURIComponent(this.cluster)}&host=${encodeURIComponent(this.host)}`;
    const [{ components }, { metrics }] = await Promise.all([get(path), get(`/api/metrics?cluster=${encodeURIComponent(this.cluster)}`)]);
    if (this.closed) return;
    this.metrics = metrics.filter((m) => components.some((c) => c.metrics.includes(m.name)));
    this.components = components;
    this.plots();
  }

  /** State, health and jobs, followed as they change. */
  tellState() {
    const show = (node) => {
      if (this.closed || node.hostname !== this.host) return;
      const facts = [["state", `${node.state} since ${span(Date.now() / 1000 - node.since)}`], ["health", node.health],
        ["missing", node.missing?.join(", ")], ["degraded", node.degraded?.join(", ")],
        ["allocated", `${node.cpusAllocated} CPUs, ${node.gpusAllocated} GPUs, ${short(node.memoryAllocated * 1e6)}B`],
        ["reported", moment(node.reported)]];
      this.facts.replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt.quiet", {}, name), el("dd", {}, value)]));
    };
    this.closers.push(live.subscribe({ nodes: { cluster: this.cluster } }, { nodes: (nodes) => nodes.forEach(show), error: (error) => complain(this.root, error) }));
    get(`/api/jobs/?state=running&cluster=${encodeURIComponent(this.cluster)}&host=${encodeURIComponent(this.host)}`).then(({ jobs }) => {
      this.jobs.replaceChildren(jobs.length ? "running: " : "no running job", ...jobs.flatMap((job) => [
        el("a", { href: `#/job/${encodeURIComponent(job.cluster)}/${job.jobId}` }, `${job.jobId}`), ` of ${job.user}  `]));
    }, (error) => this.jobs.replaceChildren(el("span.error", {}, error.message)));
  }

  /** Make the plots for the chosen range: one subscription for all node values. */
  plots() {
    this.clear();
    const range = this.range();
    const queries = this.metrics.map((m) => ({ metric: m.name, host: this.host, ...(resolution(range, m.frequency) && { resolution: resolution(range, m.frequency) }) }));
    const cards = new Map(this.metrics.map((m) => [m.name, this.card(m)]));
    let series = [];
    const done = live.subscribe({ query: { cluster: this.cluster, queries }, window: range }, {
      reset: () => { for (const card of cards.values()) card.curve.clear(); },
      series: (list) => { series = list; },
      data: (updates, from) => {
        for (const { index, times, values } of updates) {
          const card = cards.get(series[index]?.metric);
          times.forEach((time, at) => card?.curve.put(time, values[at]));
          card?.draw();
        }
        for (const card of cards.values()) card.curve.trim(from);
      },
      error: (error) => complain(this.area, error),
    });
    this.cards.push({ close: done });
  }

  card(metric) {
    const parts = this.components.filter((c) => c.type !== "node" && !c.subtype && c.metrics.includes(metric.name));
    const value = el("b"), body = el("div.plot"), curve = new Curve();
    const button = parts.length > 1 && el("button", { type: "button", "aria-expanded": "false", onclick: () => this.unfold(metric, parts, button, box) }, `${parts.length} × ${parts[0].type}`);
    const box = el("section.card.metric", { "data-metric": metric.name }, el("h2", {}, metric.name, el("small", {}, metric.unit), button, value), body);
    this.area.append(box);
    const plot = new Plot(body, { names: [metric.name], unit: metric.unit && ` ${metric.unit}` });
    this.cards.push(plot);
    return { curve, draw: () => { value.textContent = short(curve.last()[1]); plot.put([curve.times, curve.values]); } };
  }

  /** Show or hide the components of a metric below its plot. */
  unfold(metric, parts, button, box) {
    if (button.shut) { button.shut(); return; }
    const type = parts[0].type, ids = parts.filter((c) => c.type === type).map((c) => c.id);
    const map = new HeatMap(box, { label: `${metric.name} of each ${type}` });
    const range = this.range(), coarse = resolution(range, metric.frequency);
    const curves = ids.map(() => new Curve());
    let rows = [];
    const done = live.subscribe({
      query: { cluster: this.cluster, queries: ids.map((id) => ({ metric: metric.name, host: this.host, type, "type-ids": [id], ...(coarse && { resolution: coarse }) })) },
      window: range,
    }, {
      reset: () => { for (const curve of curves) curve.clear(); },
      series: (list) => { rows = list; },
      data: (updates, from) => {
        for (const { index, times, values } of updates) {
          const curve = rows[index] && curves[rows[index].query];
          times.forEach((time, at) => curve?.put(time, values[at]));
        }
        for (const curve of curves) curve.trim(from);
        map.put(align(curves, coarse || metric.frequency), ids.map((id) => type + id), metric.unit);
      },
    });
    button.setAttribute("aria-expanded", "true");
    button.shut = () => { done(); map.close(); button.shut = null; button.setAttribute("aria-expanded", "false"); };
    this.cards.push({ close: () => button.shut?.() });
  }

  clear() {
    for (const card of this.cards.splice(0)) card.close();
    this.area.replaceChildren();
  }

  close() {
    this.closed = true;
    for (const card of this.cards.splice(0)) card.close();
    for (const closer of this.closers) closer();
  }
}
