// How the store itself is: what comes in, whether it is on disk, what it costs, and what is wrong.

import { get } from "../api.js";
import { bytes, el, moment, short, span } from "../dom.js";
import { Curve } from "../curves.js";
import { Plot } from "../plot.js";
import { live } from "../stream.js";
import { complain } from "./ranges.js";

const EVERY = 2; // s
const KEPT = 600; // s

export default function open(root) {
  const view = new Store(root);
  view.start().catch((error) => complain(root, error));
  return () => view.close();
}

class Store {
  constructor(root) {
    this.root = root;
    this.rate = new Curve();
    this.memory = new Curve();
    this.before = null;
  }

  async start() {
    this.problems = el("div", { role: "status" });
    this.tiles = el("div.tiles");
    this.ledger = el("tbody");
    this.log = el("dl");
    this.nats = el("dl");
    this.jobs = el("tbody");
    const rate = el("div.plot"), memory = el("div.plot");
    const table = (title, columns, body) => el("section.card.scroll", {}, el("h2", {}, title), el("table", {},
      el("thead", {}, el("tr", {}, columns.map((c, i) => el(i ? "th.number" : "th", { scope: "col" }, c)))), body));
    this.root.append(el("div.head", {}, el("h1", {}, "Store")), this.problems, this.tiles, el("div.cards", {},
      el("section.card", {}, el("h2", {}, "Lines a second"), rate),
      el("section.card", {}, el("h2", {}, "Memory of samples and keys"), memory),
      table("Every line ends in one of these", ["outcome", "lines", "a second"], this.ledger),
      el("section.card", {}, el("h2", {}, "Log and checkpoints"), this.log),
      el("section.card", {}, el("h2", {}, "NATS"), this.nats),
      table("Periodic jobs", ["job", "runs", "failures", "seconds"], this.jobs)));
    this.plots = [new Plot(rate, { names: ["lines/s"] }), new Plot(memory, { names: ["bytes"], unit: "B" })];
    this.show(await get("/api/stats"));
    this.done = live.subscribe({ server: { interval: EVERY } }, { server: (stats) => this.show(stats), error: (error) => complain(this.root, error) });
  }

  show(stats) {
    const now = Date.now() / 1000, { before } = this;
    const seconds = before ? now - before.now : 0;
    const pace = (name) => (seconds > 0 ? (stats.lines[name] - before.stats.lines[name]) / seconds : null);
    this.before = { now, stats };
    if (seconds > 0) this.rate.put(now, pace("received"));
    this.memory.put(now, stats.samples_bytes + stats.keys_bytes);
    for (const [i, curve] of [this.rate, this.memory].entries()) {
      curve.trim(now - KEPT);
      this.plots[i].put([curve.times, curve.values]);
    }
    this.problems.replaceChildren(...stats.problems.map((text) => el("div.card.problem", {}, text)));
    const tile = (name, value, note = "") => el("div.card.tile", {}, el("span.quiet", {}, name), el("b", {}, value), el("small.quiet", {}, note));
    this.tiles.replaceChildren(
      tile("ready", stats.ready ? "yes" : "no", `up ${span(stats.uptime_seconds)}`),
      tile("ingest", `${short(pace("received"))}/s`, `${short(stats.lines.received)} lines in all`),
      tile("series", short(stats.series), `${short(stats.hosts)} hosts`),
      tile("memory", bytes(stats.samples_bytes + stats.keys_bytes), stats.process_resident_memory_bytes ? `${bytes(stats.process_resident_memory_bytes)} resident` : ""),
      tile("event loop", `${short(stats.loop_hold_seconds_max * 1000)} ms`, "held at most"),
      tile("version", stats.version));
    const { received, by_source: sources, ...outcomes } = stats.lines;
    const sum = Object.values(outcomes).reduce((a, b) => a + b, 0);
    this.ledger.replaceChildren(...[...Object.entries(outcomes), ["received", received]].map(([name, lines]) => el("tr", {},
      el("th", { scope: "row" }, name), el("td.number", {}, lines.toLocaleString()), el("td.number", {}, short(pace(name))))),
      el("tr", {}, el("td", { colspan: 3 }, sum === received ? "They add up: nothing got lost." : `They do not add up: ${sum} of ${received}!`)));
    this.facts(this.log, stats, /^(log|checkpoint|recovery|durable|wal)/);
    this.facts(this.nats, stats.nats, /./, { state: stats.nats.state, server: stats.nats.server, "last error": stats.nats.last_error });
    this.jobs.replaceChildren(...Object.entries(stats.jobs ?? {}).map(([name, job]) => el("tr", {}, el("th", { scope: "row" }, name),
      ["runs", "failures", "seconds"].map((key) => el("td.number", { title: job.last_error || null }, short(job[key]))))));
  }

  /** All numbers whose name fits, below what comes first. */
  facts(list, stats, pattern, first = {}) {
    const rows = Object.entries(stats).filter(([name, value]) => pattern.test(name) && typeof value === "number");
    const text = (name, value) => {
      if (/bytes/.test(name)) return bytes(value);
      if (/timestamp/.test(name)) return value ? moment(value) : "never";
      return /seconds/.test(name) ? `${short(value)} s` : value.toLocaleString();
    };
    list.replaceChildren(...[...Object.entries(first).filter(([, value]) => value), ...rows.map(([name, value]) => [name.replaceAll("_", " "), text(name, value)])]
      .flatMap(([name, value]) => [el("dt.quiet", {}, name), el("dd", {}, `${value}`)]));
  }

  close() {
    this.done?.();
    for (const plot of this.plots ?? []) plot.close();
  }
}
