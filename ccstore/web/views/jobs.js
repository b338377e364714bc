// The running and the recent jobs as a table.

import { get } from "../api.js";
import { el, moment, span } from "../dom.js";
import { complain } from "./ranges.js";

const EVERY = 10_000; // ms between two looks at the list

export default function open(root) {
  const state = el("select", { "aria-label": "State", onchange: () => look() }, ["running", "all"].map((s) => el("option", { value: s }, s)));
  const user = el("input", { type: "search", placeholder: "user", "aria-label": "User", onchange: () => look() });
  const body = el("tbody"), count = el("span.quiet", { role: "status" });
  const columns = ["job", "cluster", "user", "project", "partition", "state", "nodes", "started", "for"];
  root.append(
    el("div.head", {}, el("h1", {}, "Jobs"), count, el("span.spring"), user, state),
    el("div.card.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, columns.map((c) => el(c === "nodes" ? "th.number" : "th", { scope: "col" }, c)))), body)));
  const row = (job) => {
    const running = job.jobState === "running";
    return el("tr", {},
      el("td", {}, el("a", { href: `#/job/${encodeURIComponent(job.cluster)}/${job.jobId}` }, `${job.jobId}`)),
      [job.cluster, job.user, job.project, job.partition ?? "", job.jobState].map((text) => el("td", {}, text)),
      el("td.number", {}, `${job.numNodes}`), el("td", {}, moment(job.startTime)),
      el("td", {}, span(running ? Date.now() / 1000 - job.startTime : job.duration)));
  };
  let closed = false, timer = 0;
  async function look() {
    clearTimeout(timer);
    const parameters = new URLSearchParams({ limit: "500" });
    if (state.value === "running") parameters.set("state", "running");
    if (user.value.trim()) parameters.set("user", user.value.trim());
    try {
      const { jobs } = await get(`/api/jobs/?${parameters}`);
      if (closed) return;
      body.replaceChildren(...jobs.map(row));
      count.textContent = jobs.length ? `${jobs.length} ${state.value === "running" ? "running" : "newest first"}` : "none; a scheduler tells of jobs over /api/jobs/start_job/ or NATS";
      root.querySelector(".problem")?.remove();
    } catch (error) {
      root.querySelector(".problem")?.remove();
      if (!closed) complain(root, error);
    }
    if (!closed) timer = setTimeout(look, EVERY);
  }
  look();
  return () => { closed = true; clearTimeout(timer); };
}
