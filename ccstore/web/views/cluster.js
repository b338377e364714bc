// A cluster at a glance: its nodes as a grid, coloured by state and health or by the newest value of a metric.

import { get } from "../api.js";
import { el, heat, short, span } from "../dom.js";
import { live } from "../stream.js";
import { complain } from "./ranges.js";

const STATES = ["allocated", "mixed", "reserved", "idle", "down", "unknown"];
const HEALTHS = ["full", "partial", "failed"];
const FEW = 200; // nodes whose names have room in the grid
const STALE = 180; // s: how old the value of a metric may be to colour a node

export default function open(root, { cluster }) {
  const view = new Cluster(root);
  view.start(cluster).catch((error) => complain(root, error));
  return () => view.close();
}

class Cluster {
  constructor(root) {
    this.root = root;
    this.nodes = new Map(); // host -> what is known of it, with its cell
    this.wanted = { state: new Set(), health: new Set(), text: "" };
    this.closers = [];
    this.metric = "";
    this.closed = false;
  }

  async start(name) {
    const [{ clusters }, { nodes }] = await Promise.all([get("/api/clusters"), get("/api/nodes/")]);
    if (this.closed) return;
    const names = [...new Set([...clusters.map((c) => c.name), ...nodes.map((n) => n.cluster)])].sort();
    this.cluster = name ?? names[0];
    this.metrics = this.cluster ? (await get(`/api/metrics?cluster=${encodeURIComponent(this.cluster)}`)).metrics : [];
    if (this.closed) return;
    if (!this.cluster) {
      this.root.append(el("div.card", {}, el("h2", {}, "Nothing has come in yet"), el("p", {},
        "Send samples to ", el("code", {}, "POST /api/write"), " or over NATS; ", el("code", {}, "ccstore demo"), " shows how it looks.")));
      this.retry = setTimeout(() => dispatchEvent(new HashChangeEvent("hashchange")), 3000);
      return;
    }
    this.frame(names);
    this.take(nodes.filter((n) => n.cluster === this.cluster));
    this.follow();
  }

  frame(names) {
    const select = el("select", { "aria-label": "Cluster", onchange: () => { location.hash = `#/cluster/${encodeURIComponent(select.value)}`; } },
      names.map((n) => el("option", { value: n, selected: n === this.cluster }, n)));
    const colour = el("select", { id: "colour", "aria-label": "Colour by", onchange: () => this.colourBy(colour.value) },
      el("option", { value: "" }, "state and health"), this.metrics.map((m) => el("option", { value: m.name }, m.name)));
    const filter = el("input", { type: "search", placeholder: "filter hosts", "aria-label": "Filter hosts",
      oninput: () => { this.wanted.text = filter.value.trim(); this.sift(); } });
    this.count = el("span.quiet", { role: "status" });
    this.chips = el("div.chips", { role: "group", "aria-label": "Filter by state and health" });
    this.grid = el("div.nodes", { role: "group", "aria-label": "Nodes", onkeydown: (event) => this.move(event) });
    this.legend = el("p.quiet");
    this.root.append(
      el("div.head", {}, el("h1", {}, names.length > 1 ? select : this.cluster), this.count, el("span.spring"), filter, el("label", {}, "colour by ", colour)),
      el("div.head", {}, this.chips), el("div.card", {}, this.grid, this.legend));
    this.grid.addEventListener("mouseover", (event) => this.tell(event.target.closest("a"), event));
    this.grid.addEventListener("mouseleave", () => this.tell(null));
  }

  /** Follow states over the stream; the hosts that the store alone knows come with the colour's metric. */
  follow() {
    this.closers.push(live.subscribe({ nodes: { cluster: this.cluster } }, { nodes: (nodes) => this.take(nodes), error: (error) => complain(this.root, error) }));
    this.colourBy(this.metrics.find((m) => m.name === "cpu_load")?.name ?? this.metrics[0]?.name ?? "", false);
  }

  take(nodes) {
    for (const node of nodes) this.node(node.hostname).told = node;
    this.paint();
  }

  node(host) {
    let node = this.nodes.get(host);
    if (!node) {
      const cell = el("a", { href: `#/node/${encodeURIComponent(this.cluster)}/${encodeURIComponent(host)}`, "aria-label": host, tabindex: "-1", data: { node: host } }, el("span", {}, host));
      node = { cell, told: null, value: null, time: 0 };
      this.nodes.set(host, node);
      this.unsorted = true;
    }
    return node;
  }

  /** Colour the cells by a metric ("" for state and health); the newest value of each host is followed anyway. */
  colourBy(metric, chosen = true) {
    if (chosen) this.colour = metric;
    this.unfollow?.();
    for (const node of this.nodes.values()) node.value = null;
    this.metric = metric || this.metric;
    if (!this.metric) return this.paint();
    let series = [];
    this.unfollow = live.subscribe(
      { query: { cluster: this.cluster, "for-all-nodes": [this.metric] }, window: 2 * STALE },
      {
        reset: () => { for (const node of this.nodes.values()) { node.value = null; node.time = 0; } },
        series: (list) => { series = list; for (const { host } of list) this.node(host); this.paint(); },
        data: (updates) => {
          for (const { index, times, values } of updates) {
            const node = series[index] && this.node(series[index].host);
            for (let at = times.length - 1; node && at >= 0; at--) {
              if (values[at] !== null && times[at] >= node.time) { node.time = times[at]; node.value = values[at]; break; }
            }
          }
          this.paint();
        },
      });
    this.paint();
  }

  /** Paint at most once a frame, however much comes in. */
  paint() {
    this.painting ??= requestAnimationFrame(() => { this.painting = null; this.draw(); });
  }

  draw() {
    if (this.closed) return;
    if (this.unsorted) {
      this.unsorted = false;
      const order = new Intl.Collator("en", { numeric: true });
      this.hosts = [...this.nodes.keys()].sort(order.compare);
      this.grid.append(...this.hosts.map((host) => this.nodes.get(host).cell));
      this.grid.classList.toggle("few", this.hosts.length <= FEW);
      if (!this.grid.querySelector("[tabindex='0']")) this.grid.firstElementChild?.setAttribute("tabindex", "0");
    }
    const newest = Math.max(...[...this.nodes.values()].map((n) => n.time), 0);
    let high = 0;
    for (const node of this.nodes.values()) if (node.value > high) high = node.value;
    for (const node of this.nodes.values()) {
      const { cell, told } = node;
      if (told) { cell.dataset.health = told.health ?? ""; } else { delete cell.dataset.health; }
      if (this.colour) {
        delete cell.dataset.state;
        cell.style.backgroundColor = node.value === null || newest - node.time > STALE ? "" : heat(high ? node.value / high : 0);
      } else {
        cell.dataset.state = told?.state ?? "unknown";
        cell.style.backgroundColor = "";
      }
    }
    const unit = this.metrics.find((m) => m.name === this.colour)?.unit ?? "";
    this.legend.textContent = this.colour
      ? `${this.colour}: blue is 0, red is ${short(high)} ${unit}; grey: nothing for ${span(STALE)}`
      : "inside: what the scheduler says; corner: metrics that do not arrive (yellow some, red none)";
    this.countThem();
    this.sift();
  }

  countThem() {
    const counts = new Map();
    for (const { told } of this.nodes.values()) {
      for (const key of [`state ${told?.state ?? "unknown"}`, told && `health ${told.health}`]) if (key) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const chip = (kind, name) => counts.has(`${kind} ${name}`) || this.wanted[kind].has(name)
      ? el("button", {
        type: "button", "data-chip": name, "aria-pressed": String(this.wanted[kind].has(name)),
        onclick: () => { if (!this.wanted[kind].delete(name)) this.wanted[kind].add(name); this.draw(); },
      }, el("i", { data: { [kind]: name } }), `${name} ${counts.get(`${kind} ${name}`) ?? 0}`)
      : null;
    this.chips.replaceChildren(...[...STATES.map((s) => chip("state", s)), ...HEALTHS.map((h) => chip("health", h))].filter(Boolean));
  }

  sift() {
    const { state, health, text } = this.wanted;
    let shown = 0;
    for (const [host, { cell, told }] of this.nodes) {
      cell.hidden = !((!state.size || state.has(told?.state ?? "unknown")) && (!health.size || health.has(told?.health)) && host.includes(text));
      shown += !cell.hidden;
    }
    this.count.textContent = shown === this.nodes.size ? `${shown} nodes` : `${shown} of ${this.nodes.size} nodes`;
  }

  /** Arrow keys move the focus; down and up by a row. */
  move(event) {
    const cells = [...this.grid.children].filter((cell) => !cell.hidden);
    const at = cells.indexOf(document.activeElement);
    const columns = cells.filter((cell) => cell.offsetTop === cells[0].offsetTop).length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (step === undefined || at < 0) return;
    event.preventDefault();
    const next = cells[Math.min(Math.max(at + step, 0), cells.length - 1)];
    for (const cell of [cells[at], next]) cell.setAttribute("tabindex", cell === next ? "0" : "-1");
    next.focus();
    this.tell(next);
  }

  tell(cell, at) {
    document.getElementById("tip")?.remove();
    if (!cell) return;
    const { told, value } = this.nodes.get(cell.dataset.node);
    const lines = [el("b", {}, cell.dataset.node)];
    if (told) {
      lines.push(el("div", {}, `${told.state} since ${span(Date.now() / 1000 - told.since)}, health ${told.health}`));
      for (const kind of ["missing", "degraded"]) if (told[kind]?.length) lines.push(el("div", {}, `${kind}: ${told[kind].slice(0, 8).join(", ")}`));
      if (told.jobsRunning) lines.push(el("div", {}, `${told.jobsRunning} jobs, ${told.cpusAllocated} CPUs`));
    } else lines.push(el("div.quiet", {}, "no scheduler has told of it"));
    if (this.metric) lines.push(el("div", {}, `${this.metric}: ${short(value)}`));
    const tip = el("div", { id: "tip" }, lines);
    document.body.append(tip);
    const box = cell.getBoundingClientRect();
    tip.style.left = `${Math.min(at ? at.clientX + 14 : box.right, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(at ? at.clientY + 14 : box.bottom + 6, innerHeight - tip.offsetHeight - 8)}px`;
  }

  close() {
    this.closed = true;
    clearTimeout(this.retry);
    this.unfollow?.();
    for (const closer of this.closers) closer();
    document.getElementById("tip")?.remove();
  }
}
