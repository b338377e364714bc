"""What ``status`` shows: one screen made of two answers of ``/api/stats``.

Functions from values to what rich prints; they ask nobody and read no clock. Invariant: a rate is the
difference of two looks at one life of the server, by the server's own clock; where there is none, it is a
dash.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ccstore.cli.figures import amount, bytes_of, grouped

__all__ = ["ADVICE", "Look", "advise", "draw", "rates"]

ADVICE: Mapping[str, str] = {
    "recovering: ": "wait: it reads its files, and queries get 503 meanwhile",
    "log: shard ": "make room on the disk, and do not restart: a checkpoint makes it durable again by itself",
    "registry: ": "see to the file main.db and its disk; events wait, and it is tried until it works",
    "nats: events: ": "look at the broker and the log: the connection for events of jobs and nodes",
    "nats: connecting": "look at the broker and at the last error; it is tried for ever",
    "nats: closed": "the server is stopping",
    "nats: dropping messages": "see who uses the processor, send less, or raise metric-store.nats-buffer",
    "nats: not permitted: ": "give the store's user the right at the broker; it asks again by itself",
    "memory: over the cap": "lower metric-store.retention-in-memory, or raise memory-cap",
}
"""What to do about a problem, by how it begins; docs/how-to/monitor.md tells more."""

_COUNTERS = (
    "log_appended_samples", "log_durable_samples", "log_bytes", "checkpoint_bytes", "freed_chunks",
    "loop_busy_seconds", "http_received_bytes", "http_sent_bytes", "stream_bytes",
)  # fmt: skip
"""Of those that only grow, the ones whose rates are told."""
_NATS_COUNTERS = ("messages", "bytes", "dropped_messages", "dropped_lines")
_HEADS = 12
"""Columns of the words on the left."""
_NAMES = 8
"""Names of unknown metrics that are shown."""


@frozen
class Look:
    """One answer of ``/api/stats``. Raises KeyError or ValueError if it is none."""

    stats: Mapping[str, Any]
    uptime: float = field(init=False)
    """Seconds, by the server's clock."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "uptime", float(self.stats["uptime_seconds"]))
        for key in ("ready", "problems", "lines", "nats", "jobs", "series"):
            self.stats[key]

    @property
    def is_ready(self) -> bool:
        """Whether the server says so."""
        return bool(self.stats["ready"])

    def number(self, key: str, default: float = 0) -> float:
        """Return a number that older servers may not have."""
        value: float = self.stats.get(key, default)
        return value


def advise(problem: str) -> str:
    """Tell what to do about a problem."""
    return next((text for start, text in ADVICE.items() if problem.startswith(start)), "see the server's log")


def rates(before: Look, after: Look) -> dict[str, Any]:
    """Return how much came a second between two looks; None where that cannot be told."""
    seconds = after.uptime - before.uptime

    def rate(old: Any, new: Any) -> float | None:
        grown = (new or 0) - (old or 0)
        return grown / seconds if seconds > 0 and grown >= 0 else None

    def of(old: Mapping[str, Any], new: Mapping[str, Any], keys: Sequence[str]) -> dict[str, float | None]:
        return {key: rate(old.get(key), new[key]) for key in keys if key in new}

    old, new = before.stats, after.stats
    outcomes = [key for key, value in new["lines"].items() if not isinstance(value, dict)]
    routes = {path: counts["requests"] for path, counts in new.get("routes", {}).items()}
    asked = {path: counts["requests"] for path, counts in old.get("routes", {}).items()}
    return {
        "seconds": seconds if seconds > 0 else None,
        "lines": of(old["lines"], new["lines"], outcomes),
        "nats": of(old["nats"], new["nats"], _NATS_COUNTERS),
        "requests": of(asked, routes, list(routes)),
        **of(old, new, _COUNTERS),
    }


def draw(before: Look, look: Look, *, url: str, width: int) -> RenderableType:
    """Draw the screen, at most `width` columns wide."""
    paces = rates(before, look)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=_HEADS, style="bold")
    grid.add_column(overflow="fold", max_width=max(20, width - _HEADS - 4))
    for head, body in _parts(look, paces):
        grid.add_row(head, body)
    return Group(_title(look, url), *_problems(look), Text(), grid)


def _title(look: Look, url: str) -> Text:
    ready = ("ready", "bold green") if look.is_ready else ("not ready", "bold red")
    version = str(look.stats.get("version", "?"))
    return Text.assemble(f"ccstore {version}   {url}   up {_span(look.uptime)}   ", ready)


def _problems(look: Look) -> Iterator[Text]:
    for problem in look.stats["problems"]:
        yield Text.assemble("  ", (_plain(problem), "red"))
        yield Text(f"    {advise(str(problem))}", "dim")


def _parts(look: Look, paces: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    yield "Lines", _lines(look, paces["lines"])
    if unknown := list(look.stats.get("unknown_metrics", ())):
        more = f" and {len(unknown) - _NAMES} more" if len(unknown) > _NAMES else ""
        yield "Unknown", Text(", ".join(map(_plain, unknown[:_NAMES])) + more + "   (metrics not configured)")
    yield "Memory", _memory(look)
    if "log_durable" in look.stats:
        yield "Log", _log(look, paces)
        yield "Checkpoints", _checkpoints(look)
    yield "NATS", _nats(look.stats["nats"], paces["nats"])
    yield "HTTP", _http(look, paces)
    if look.number("stream_connections"):
        yield "Streams", _streams(look, paces)
    yield "Event loop", _loop(look, paces)
    yield "Jobs", _jobs(look.stats["jobs"])


def _lines(look: Look, paces: Mapping[str, float | None]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for outcome, total in look.stats["lines"].items():
        usual = outcome in ("received", "stored", "overwritten", "unknown_metric")
        if isinstance(total, dict) or not (total or usual):
            continue
        grows = not usual and (paces.get(outcome) or 0) > 0
        row = (outcome.replace("_", " "), f"{_pace(paces.get(outcome))}/s", grouped(total))
        table.add_row(*row, style="yellow" if grows else "")
    return table


def _memory(look: Look) -> Text:
    used, cap = look.number("samples_bytes") + look.number("keys_bytes"), look.number("cap_bytes")
    share = f" of {bytes_of(int(cap))} ({used / cap:.0%})" if cap else ", no cap"
    return Text(
        f"{bytes_of(int(used))}{share}   {grouped(int(look.number('series')))} series of "
        f"{amount(int(look.number('hosts')), 'host')} in {amount(int(look.number('clusters')), 'cluster')}"
    )


def _log(look: Look, paces: Mapping[str, Any]) -> Text:
    state = ("on disk", "green") if look.stats["log_durable"] else ("NOT DURABLE", "bold red")
    waiting = look.number("log_appended_samples") - look.number("log_durable_samples")
    return Text.assemble(
        state,
        f"   {_pace(paces.get('log_durable_samples'))} samples/s   {_pace_of_bytes(paces.get('log_bytes'))}"
        f"   {grouped(int(waiting))} waiting   longest write {_short(look.number('log_commit_seconds_max'))}",
    )


def _checkpoints(look: Look) -> Text:
    ages = [shard["checkpoint_age_seconds"] for shard in look.stats.get("shards", {}).values()]
    oldest = f"the oldest {_span(max(ages))} ago" if ages else "none"
    damages = int(look.number("recovery_damages"))
    parts = [(f"{oldest}   {amount(int(look.number('checkpoints')), 'file')} since the start", "")]
    if damages:
        parts.append((f"   {amount(damages, 'damaged place')}: see the log of the start", "red"))
    return Text.assemble(*parts)


def _nats(nats: Mapping[str, Any], paces: Mapping[str, float | None]) -> Text:
    if nats["state"] == "off":
        return Text("off", "dim")
    dropped = int(nats.get("dropped_lines", 0))
    where = f"{nats['state']} to {nats['server']}" if nats["server"] else str(nats["state"])
    held, budget = bytes_of(int(nats.get("held_bytes", 0))), bytes_of(int(nats.get("budget_bytes", 0)))
    parts: list[tuple[str, str]] = [
        (_plain(where), ""),
        (f"   {_pace(paces.get('messages'))} messages/s   {held} of {budget} waiting", ""),
    ]
    if dropped:
        parts.append((f"   {amount(dropped, 'line')} dropped", "bold red"))
    if nats.get("last_error"):
        parts.append((f"\nlast error: {_plain(nats['last_error'])}", "dim"))
    return Text.assemble(*parts)


def _http(look: Look, paces: Mapping[str, Any]) -> Text:
    busiest = sorted(paces["requests"].items(), key=lambda pair: -(pair[1] or 0))
    asked = "   ".join(f"{path} {_pace(pace)}/s" for path, pace in busiest[:4] if pace)
    open_ = amount(int(look.number("http_connections")), "connection")
    received, sent = paces.get("http_received_bytes"), paces.get("http_sent_bytes")
    flow = f"   in {_pace_of_bytes(received)}   out {_pace_of_bytes(sent)}"
    return Text(open_ + flow + (f"\n{asked}" if asked else ""))


def _streams(look: Look, paces: Mapping[str, Any]) -> Text:
    slow = int(look.number("stream_lags"))
    parts = [
        (f"{amount(int(look.number('stream_connections')), 'websocket')}   ", ""),
        (f"{amount(int(look.number('stream_feeds')), 'subscription')}   ", ""),
        (_pace_of_bytes(paces.get("stream_bytes")), ""),
        (f"   interrupted {amount(slow, 'time')} for slow clients" if slow else "", "yellow"),
    ]
    return Text.assemble(*parts)


def _loop(look: Look, paces: Mapping[str, Any]) -> Text:
    busy = paces.get("loop_busy_seconds")
    share = "-" if busy is None else f"{busy:.0%}"
    task = look.stats.get("loop_hold_task") or "nobody"
    longest = _short(look.number("loop_hold_seconds_max"))
    return Text(f"{share} busy   held for {longest} at most, by {task}")


def _jobs(jobs: Mapping[str, Mapping[str, Any]]) -> Text:
    parts: list[tuple[str, str]] = []
    for name, job in jobs.items():
        took = f"{_short(job['seconds'])}" if job["runs"] else "not yet"
        parts.append((f"{name} {took}   ", ""))
    for name, job in jobs.items():
        if job["last_error"]:
            parts.append((f"\n{name} failed, is tried again: {_plain(job['last_error'])}", "red"))
    return Text.assemble(*parts) if parts else Text("none", "dim")


def _plain(text: Any) -> str:
    """Escape what would move the cursor: brokers and senders have a say in some texts."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _pace(value: float | None) -> str:
    if value is None:
        return "-"
    return grouped(round(value)) if value >= 10 or value == int(value) else f"{value:.1f}"


def _pace_of_bytes(value: float | None) -> str:
    return "-" if value is None else f"{bytes_of(round(value))}/s"


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _span(seconds: float) -> str:
    """Return a time in its two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((k for k, (count, _) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2])
