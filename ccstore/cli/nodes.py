"""The command ``nodes``: what a scheduler says of the nodes, and what the store sees of them.

Owns the options and the two tables: all nodes, or the history of one. The frame is in `listing`.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import click
from rich.console import RenderableType
from rich.text import Text

from ccstore.cli.client import Client, server_options
from ccstore.cli.figures import amount
from ccstore.cli.listing import age, choices, fetch, list_options, named, show, table
from ccstore.errors import QueryError
from ccstore.model import Health, NodeState

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore nodes                              every node, its state and its health
  ccstore nodes --state down                 those that are down, and since when
  ccstore nodes --health partial,failed      those of which metrics are missing, and which
  ccstore nodes a0101                        what was said of one node
  ccstore nodes --cluster alex --watch       again every 10 s, until Ctrl-C
"""
_STATE_STYLES = {"allocated": "green", "mixed": "green", "idle": "cyan", "reserved": "yellow", "down": "red"}
_HEALTH_STYLES = {"partial": "yellow", "failed": "red"}

_NUMBERS = {
    "jobs": "jobsRunning",
    "CPUs": "cpusAllocated",
    "memory": "memoryAllocated",
    "GPUs": "gpusAllocated",
}
"""Keys of numbers by the head of their column."""


def _now() -> int:
    return int(time.time())


@click.command("nodes", epilog=_EPILOG)
@click.argument("host", required=False)
@named("--cluster", "of these clusters")
@named("--subcluster", "of these subclusters")
@choices("--state", "in these states", [state.value for state in NodeState])
@choices("--health", "of this health", [health.value for health in Health])
@list_options
@server_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    host: str | None,
    cluster: Sequence[str],
    subcluster: Sequence[str],
    state: Sequence[str],
    health: Sequence[str],
    as_json: bool,
    watch: int | None,
    url: str,
    token: str,
) -> None:
    """Show the nodes that a scheduler has told of, or what it told of HOST."""
    if host is not None and (subcluster or state or health):
        ctx.fail("a HOST with --subcluster, --state or --health (wanted --cluster alone)")
    with Client(url, token=token) as client:
        if host is not None:
            ask = partial(_ask_history, client, host, cluster)
            show(ctx, ask, _draw_history, as_json=as_json, watch=watch)
            return
        wanted = {"cluster": cluster, "subcluster": subcluster, "state": state, "health": health}
        show(ctx, partial(fetch, client, "/api/nodes/", wanted), _draw_nodes, as_json=as_json, watch=watch)


def _ask_history(client: Client, host: str, clusters: Sequence[str]) -> Any:
    if len(clusters) != 1:
        nodes = fetch(client, "/api/nodes/", {"cluster": clusters})["nodes"]
        clusters = [node["cluster"] for node in nodes if node["hostname"] == host]
        if not clusters:
            raise QueryError(f"nodes: nobody has told of {host!r}")
        if len(clusters) > 1:
            raise QueryError(f"nodes: {host!r} is in {', '.join(clusters)} (wanted one as --cluster NAME)")
    return client.get_json(f"/api/nodes/{quote(clusters[0], safe='')}/{quote(host, safe='')}/")


def _draw_nodes(answer: Any, limit: int) -> RenderableType:
    nodes, now = answer["nodes"], _now()
    several = len({node["cluster"] for node in nodes}) > 1
    rows: list[tuple[str | Text, ...]] = [
        (
            node["hostname"],
            node["cluster"] if several else "",
            node["subcluster"],
            *_state(node),
            age(now - node["since"]),
            *_numbers(node),
            age(now - node["reported"]),
            _trouble(node),
        )
        for node in nodes
    ]
    columns = {
        "host": "left", "cluster": "left", "subcluster": "left", "state": "left", "health": "left",
        "since": "right", **dict.fromkeys(_NUMBERS, "right"), "told": "right", "metrics": "left",
    }  # fmt: skip
    counts = [_count(nodes, "state", (state.value for state in NodeState))]
    counts += [_count(nodes, "health", (health.value for health in Health))]
    return table("; ".join([amount(len(nodes), "node"), *filter(None, counts)]), columns, rows, limit)


def _draw_history(answer: Any, limit: int) -> RenderableType:
    rows: list[tuple[str | Text, ...]] = [
        (
            f"{datetime.fromtimestamp(one['time']):%Y-%m-%d %H:%M:%S}",
            *_state(one),
            *_numbers(one),
            _trouble(one),
        )
        for one in answer["states"]
    ]
    columns = {
        "time": "left", "state": "left", "health": "left", **dict.fromkeys(_NUMBERS, "right"),
        "metrics": "left",
    }  # fmt: skip
    where = " of ".join(filter(None, (answer["subcluster"], answer["cluster"])))
    return table(f"{answer['hostname']}, {where}", columns, rows, limit)


def _state(node: Mapping[str, Any]) -> tuple[Text, Text]:
    state, health = node["state"], node["health"]
    return Text(state, _STATE_STYLES.get(state, "")), Text(health, _HEALTH_STYLES.get(health, ""))


def _numbers(node: Mapping[str, Any]) -> Iterable[str]:
    return (str(node[key] or "") for key in _NUMBERS.values())


def _trouble(node: Mapping[str, Any]) -> str:
    """Return which metrics do not arrive as they should."""
    lists = [f"{word}: {', '.join(node[word])}" for word in ("missing", "degraded") if node[word]]
    return "; ".join(lists)


def _count(nodes: Sequence[Mapping[str, Any]], key: str, words: Iterable[str]) -> str:
    found = Counter(node[key] for node in nodes)
    return ", ".join(f"{found[word]} {word}" for word in words if found[word])
