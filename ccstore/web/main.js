// The frame of the page: which view is shown, keys, search, theme, and how the link to the server is.

import { get } from "./api.js";
import { el, moment } from "./dom.js";
import { live } from "./stream.js";
import cluster from "./views/cluster.js";
import job from "./views/job.js";
import jobs from "./views/jobs.js";
import node from "./views/node.js";
import store from "./views/store.js";

// Paths behind the #; names are encoded, for a host or a cluster may have any sign in its name.
const ROUTES = [
  [/^\/?$/, "cluster", cluster, []],
  [/^\/cluster\/([^/]+)$/, "cluster", cluster, ["cluster"]],
  [/^\/node\/([^/]+)\/([^/]+)$/, "cluster", node, ["cluster", "host"]],
  [/^\/jobs$/, "jobs", jobs, []],
  [/^\/job\/([^/]+)\/([^/]+)$/, "jobs", job, ["cluster", "jobId"]],
  [/^\/store$/, "store", store, []],
];

const view = document.getElementById("view");
let close = () => {};

function show() {
  const path = location.hash.slice(1) || "/";
  const [match, page, open, names] = ROUTES.map(([rule, ...rest]) => [rule.exec(path), ...rest]).find(([m]) => m) ?? [];
  close();
  close = () => {};
  document.getElementById("tip")?.remove();
  view.replaceChildren();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!match) {
    view.append(el("p", {}, `There is no page ${path}. `, el("a", { href: "#/" }, "The cluster")));
    return;
  }
  const parameters = Object.fromEntries(names.map((name, i) => [name, decodeURIComponent(match[i + 1])]));
  document.title = ["ccstore", ...Object.values(parameters)].join(" · ");
  close = open(view, parameters);
}

addEventListener("hashchange", show);

// --- keys

const KEYS = { c: "#/", j: "#/jobs", s: "#/store" };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  if (event.key === "/") { event.preventDefault(); search.elements.text.focus(); }
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (KEYS[event.key]) location.hash = KEYS[event.key];
  else if (/^[1-5]$/.test(event.key)) document.querySelectorAll("[data-range]")[event.key - 1]?.click();
});

// --- search: a number is a job, anything else a host

const search = document.getElementById("search");
let known = Promise.resolve([]); // the nodes, asked for when somebody begins to search

async function learn() {
  const { nodes } = await get("/api/nodes/");
  document.getElementById("found").replaceChildren(...nodes.slice(0, 5000).map((n) => el("option", { value: n.hostname })));
  return nodes;
}

search.elements.text.addEventListener("focus", () => { known = learn(); known.catch(() => {}); });

/** A host of which there are samples, although no scheduler has told of it. */
async function stored(hostname) {
  for (const { name: cluster } of (await get("/api/clusters")).clusters) {
    const path = `/api/components?${new URLSearchParams({ cluster, host: hostname })}`;
    const answer = await get(path).catch((error) => { if (error.status !== 404) throw error; });
    if (answer) return { cluster, hostname };
  }
  return null;
}

search.addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = search.elements.text, text = input.value.trim();
  try {
    const nodes = await known; // who types fast is here before the answer
    const found = nodes.find((n) => n.hostname === text) ?? nodes.find((n) => n.hostname.startsWith(text)) ?? await stored(text);
    if (found) location.hash = `#/node/${encodeURIComponent(found.cluster)}/${encodeURIComponent(found.hostname)}`;
    else if (/^\d+$/.test(text)) {
      const job = await get(`/api/jobs/${text}/`);
      location.hash = `#/job/${encodeURIComponent(job.cluster)}/${job.jobId}`;
    } else throw new Error(`no host ${text}`);
    input.value = "";
    input.blur();
  } catch (error) {
    input.setCustomValidity(error.message);
    input.reportValidity();
    input.addEventListener("input", () => input.setCustomValidity(""), { once: true });
  }
});

// --- theme: as the system, light, dark

const THEMES = ["auto", "light", "dark"];
const button = document.getElementById("theme");

function paint(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = theme;
  localStorage.setItem("ccstore.theme", theme);
  dispatchEvent(new Event("theme"));
}

button.addEventListener("click", () => paint(THEMES[(THEMES.indexOf(button.textContent) + 1) % THEMES.length]));
paint(THEMES.includes(localStorage.getItem("ccstore.theme")) ? localStorage.getItem("ccstore.theme") : "auto");

// --- the link to the server

const WORDS = { connecting: "connecting", live: "live", lost: "connection lost, trying again" };
live.onstate = (state) => {
  const link = document.getElementById("link");
  link.dataset.state = state;
  link.textContent = WORDS[state];
};
live.connect();
setInterval(() => { document.getElementById("clock").textContent = moment(Date.now() / 1000); }, 1000);

show();
