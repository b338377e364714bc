// The link to the server: one websocket, any number of subscriptions, which outlive it.
//
// When the connection is lost it is made again, with growing pauses, and each subscription goes on behind the
// last message that came (its token); if the server does not know that any more, it sends everything anew, and
// says so by `reset`. docs/reference/stream.md is the protocol.

import { login, token } from "./api.js";

const PAUSES = [250, 500, 1000, 2000, 5000]; // ms before the next try
const SILENCE = 40_000; // ms without any message, heartbeats included, after which the link counts as lost
const UNAUTHORIZED = [401, 403];
const EXPIRED = 1008; // why the server closes when the token has expired

class Live {
  onstate = () => {};

  constructor() {
    this.subscriptions = new Map(); // id -> {request, handlers, token}
    this.count = 0;
    this.tries = 0;
    this.socket = null;
  }

  /**
   * Subscribe; returns a function that ends it. Handlers, each optional:
   *   series(list)    what the indices of updates stand for, all of them
   *   reset()         what came so far is void
   *   data(updates, from)   [{index, times, values}], null for no value; replaces what came for the same time;
   *                   `from`: forget what is older
   *   nodes(list), server(stats), ended(message), error(Error), lagged(message)
   */
  subscribe(request, handlers) {
    const id = `s${++this.count}`;
    this.subscriptions.set(id, { request, handlers, token: "", series: [] });
    if (this.isOpen()) this.ask(id);
    else this.connect();
    return () => {
      this.subscriptions.delete(id);
      if (this.isOpen()) this.socket.send(JSON.stringify({ op: "unsubscribe", id }));
    };
  }

  isOpen() { return this.socket?.readyState === WebSocket.OPEN; }

  ask(id) {
    const { request, token: resume } = this.subscriptions.get(id);
    this.socket.send(JSON.stringify({ op: "subscribe", id, ...request, ...(resume && { resume }) }));
  }

  connect() {
    if (this.socket) return;
    this.onstate(this.tries ? "lost" : "connecting");
    // a browser cannot put a token into a header of a websocket, but into the list of protocols
    const protocols = token() ? ["ccstore.stream", `ccstore.token.${token()}`] : ["ccstore.stream"];
    const socket = this.socket = new WebSocket(new URL("/api/stream", location.href.replace(/^http/, "ws")), protocols);
    socket.onopen = () => {
      this.tries = 0;
      this.onstate("live");
      this.listen();
      for (const id of this.subscriptions.keys()) this.ask(id);
    };
    socket.onmessage = ({ data }) => {
      this.listen();
      this.take(JSON.parse(data));
    };
    socket.onclose = async ({ code }) => {
      clearTimeout(this.silence);
      this.socket = null;
      this.onstate("lost");
      if (code === EXPIRED) await login("the token has expired");
      this.later = setTimeout(() => this.connect(), PAUSES[Math.min(this.tries++, PAUSES.length - 1)]);
      if (this.tries === 2) this.checkToken();
    };
  }

  /** A refused handshake has no reason that a script may see: ask over HTTP whether it is the token. */
  async checkToken() {
    const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
    const answer = await fetch("/api/clusters", { headers }).catch(() => null);
    if (answer && UNAUTHORIZED.includes(answer.status)) await login("the token does not hold any more");
  }

  listen() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket?.close(), SILENCE);
  }

  take(message) {
    const subscription = this.subscriptions.get(message.id);
    if (!subscription) return;
    const { handlers } = subscription;
    switch (message.op) {
      case "series":
        if (message.reset) { subscription.series = []; handlers.reset?.(); }
        for (const one of message.series) subscription.series[one.index] = one;
        handlers.series?.(subscription.series);
        break;
      case "data":
        if (message.token) subscription.token = message.token; // the last part of several has it
        handlers.data?.(message.values.map(([index, times, values]) => ({ index, times, values })), message.from);
        break;
      case "server": handlers.server?.(message.stats); break;
      case "nodes": handlers.nodes?.(message.nodes); break;
      case "ended": handlers.ended?.(message); break;
      case "lagged": handlers.lagged?.(message); break;
      case "error":
        this.subscriptions.delete(message.id);
        (handlers.error ?? console.error)(new Error(message.error));
        break;
      default: // `subscribed`, and what newer servers may tell
    }
  }
}

export const live = new Live();
