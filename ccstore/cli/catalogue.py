"""What a server has, for commands that want to say more than "not found".

Owns the lists of metrics, clusters and hosts of one server, and the words for a name that is not in
them. Each list is asked for when it is first needed, and once. Invariant: a server that does not tell
its lists, such as the reference store, makes the words poorer and never the answers wrong.
"""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from ccstore.cli.client import Client, ServerError
from ccstore.errors import QueryError
from ccstore.model import Aggregation, Metric

__all__ = ["Catalogue", "join_names"]

T = TypeVar("T")

_NOT_FOUND = 404
_NAMED = 5
"""How many of many names are listed."""


class Catalogue:
    """The lists of one server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @cached_property
    def metrics(self) -> Mapping[str, Metric] | None:
        """The metrics that the server stores, by name; None if it does not tell."""
        return self._list(
            "/api/metrics", lambda answer: {one["name"]: _metric(one) for one in answer["metrics"]}
        )

    @cached_property
    def clusters(self) -> Mapping[str, int] | None:
        """The clusters with samples, and how many hosts each has; None if the server does not tell."""
        return self._list(
            "/api/clusters", lambda answer: {one["name"]: int(one["hosts"]) for one in answer["clusters"]}
        )

    def hosts(self, cluster: str) -> Sequence[str]:
        """The hosts of a cluster with samples, sorted by name."""
        question = {"cluster": cluster, "for-all-nodes": [""], "with-data": False, "with-stats": False}
        answer = self._client.post_json("/api/query", question)
        return [query["host"] for query in answer.get("queries", ())]

    def unit(self, metric: str) -> str:
        """The unit of a metric; empty if it has none or is not known."""
        known = (self.metrics or {}).get(metric)
        return known.unit if known else ""

    def check_metrics(self, names: Sequence[str]) -> None:
        """Raise QueryError for metrics that the server does not store, if it tells."""
        known = self.metrics
        if known is not None:
            unknown = [
                f"query: unknown metric {name!r}{suggest(name, known)}" for name in names if name not in known
            ]
            if unknown:
                raise QueryError("\n".join(unknown))

    def find_cluster(self, name: str | None) -> str:
        """Return the cluster to ask about: the one named, or the only one. Raises QueryError."""
        if name is not None:
            return name
        if self.clusters is None:
            raise QueryError("query: this server does not tell its clusters (wanted --cluster NAME)")
        if not self.clusters:
            raise QueryError("query: this server has no samples yet")
        if len(self.clusters) > 1:
            raise QueryError(
                f"query: several clusters: {join_names(self.clusters)} (wanted one as --cluster NAME)"
            )
        return next(iter(self.clusters))

    def explain_host(self, cluster: str, host: str, hosts: Collection[str]) -> str:
        """Return the words for a host of which nothing is stored; `hosts` are those of the cluster."""
        if not hosts:
            return self.explain_cluster(cluster)
        return f"query: nothing is stored of host {host!r} in cluster {cluster!r}{suggest(host, hosts)}"

    def explain_cluster(self, cluster: str) -> str:
        """Return the words for a cluster of which nothing is stored."""
        known = [name for name in self.clusters or () if name != cluster]
        there = f" (the server has {join_names(known)})" if known else ""
        return f"query: nothing is stored of cluster {cluster!r}{there}"

    def _list(self, path: str, read: Callable[[Any], T]) -> T | None:
        try:
            return read(self._client.get_json(path))
        except ServerError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(
                f"{self._client.url}{path}: the answer is not one of ccstore ({error!r})"
            ) from error


def join_names(names: Collection[str]) -> str:
    """Return the first few of many names."""
    shown = list(names)[:_NAMED]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def suggest(name: str, known: Collection[str]) -> str:
    """Return a hint behind an unknown name: what may have been meant, else what there is."""
    meant = difflib.get_close_matches(name, known, n=1)
    if meant:
        return f" (did you mean {meant[0]!r}?)"
    return f" (there is {join_names(known)})" if known else ""


def _metric(one: Mapping[str, Any]) -> Metric:
    return Metric(one["name"], int(one["frequency"]), Aggregation(one["aggregation"] or ""), one["unit"])
