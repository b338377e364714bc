"""Questions to a server and their answers, as values: what ``query`` asks and what it shows.

Owns the way from a question to the JSON of a request, and from the JSON of an answer to one `Series` for each
place that was asked for. It sends nothing and shows nothing. Invariant: which place a result belongs to
follows from its position alone, with every server that speaks the protocol.

So components that are to be seen one by one are asked for in queries of one component each. A
query with several would have its results shifted by a component that is missing, unless the server fills
its place.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from attrs import field, frozen
from numpy.typing import NDArray

from ccstore.cli.client import ServerError

__all__ = [
    "Components",
    "Ids",
    "Place",
    "Question",
    "Series",
    "decode_answer",
    "encode_question",
    "parse_ids",
]

_MAX_RANGE = 10_000
"""Ids that one range such as 0-71 may have; more is a slip of the finger."""


@frozen
class Ids:
    """A list of ids, as a user wrote it and as the server wants it."""

    text: str
    names: tuple[str, ...]


@frozen
class Components:
    """The parts of a host that are asked for."""

    type: str
    ids: Ids
    subtype: str = ""
    """Empty if the components are asked for as a whole."""
    subids: Ids = Ids("", ())
    combined: bool = False
    """Whether the server combines them into one, as the metric's aggregation says."""

    def selectors(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return a name for readers and the keys of a query, for each result that is wanted."""
        if self.combined:
            name = f"{self.type}[{self.ids.text}]"
            keys = {"type": self.type, "type-ids": self.ids.names, "aggreg": True}
            if self.subtype:
                name += f".{self.subtype}[{self.subids.text}]"
                keys |= {"subtype": self.subtype, "subtype-ids": self.subids.names}
            yield name, keys
            return
        for id_ in self.ids.names:
            one = {"type": self.type, "type-ids": [id_]}
            if not self.subtype:
                yield f"{self.type}{id_}", one
            for subid in self.subids.names:
                below = {"subtype": self.subtype, "subtype-ids": [subid]}
                yield f"{self.type}{id_}.{self.subtype}{subid}", {**one, **below}


@frozen
class Question:
    """What is asked for, but for the time."""

    cluster: str
    metrics: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    """Empty for all of the cluster, which the server then names."""
    components: Components | None = None
    resolution: int = 0
    """Seconds between two values; 0 for all of them."""

    @property
    def needs_hosts(self) -> bool:
        """Whether the hosts must be named: only plain values can be had of all at once."""
        return not self.hosts and (self.components is not None or self.resolution > 0)


@frozen
class Place:
    """Where one series is."""

    metric: str
    host: str
    component: str = ""
    """A name for readers; empty for the host as a whole."""


@frozen(eq=False)
class Series:
    """What came back for one place."""

    place: Place
    error: str = ""
    """What the server says was wrong; there are no values then."""
    is_stored: bool = True
    """Whether the server knows the place, for this metric."""
    begin: int = 0
    """Seconds; time of the first value."""
    step: int = 1
    """Seconds between two values."""
    values: NDArray[np.float64] = field(factory=lambda: np.empty(0))
    """NaN where nothing was stored."""
    average: float = np.nan
    lowest: float = np.nan
    highest: float = np.nan

    @property
    def times(self) -> NDArray[np.int64]:
        """Seconds; one for each value."""
        return self.begin + self.step * np.arange(len(self.values), dtype=np.int64)

    @property
    def last(self) -> float:
        """The newest value that is there; NaN if there is none."""
        found = np.flatnonzero(~np.isnan(self.values))
        return float(self.values[found[-1]]) if len(found) else np.nan


def parse_ids(text: str) -> Ids:
    """Read a list of ids with ranges: ``0,4-6`` is 0, 4, 5 and 6.

    What does not look like a range is an id as it is. Raises ValueError.
    """
    ids: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if ends := re.fullmatch("([0-9]+)-([0-9]+)", part):
            first, last = int(ends[1]), int(ends[2])
            if not 0 <= last - first < _MAX_RANGE:
                raise ValueError(f"not a range (got {part!r}, wanted such as 0-71)")
            ids += map(str, range(first, last + 1))
        else:
            ids.append(part)
    if not ids:
        raise ValueError(f"no id (got {text!r}, wanted such as 0,1 or 0-71)")
    return Ids(text, tuple(dict.fromkeys(ids)))


def encode_question(
    question: Question, hosts: Sequence[str], start: int, stop: int
) -> tuple[Mapping[str, Any], Sequence[Place]]:
    """Return the request for [start, stop), and the place of each of its queries.

    Without hosts there are no places: the answer will name them. Padding is left out, so that the time of the
    first value is the one that the answer tells.
    """
    request = {"cluster": question.cluster, "from": start, "to": stop, "with-padding": False}
    if not hosts:
        assert not question.needs_hosts
        return {**request, "for-all-nodes": question.metrics}, []
    selectors = list(question.components.selectors()) if question.components else [("", {})]
    resolution = {"resolution": question.resolution} if question.resolution else {}
    places, queries = [], []
    for host in hosts:
        for metric in question.metrics:
            for component, keys in selectors:
                places.append(Place(metric, host, component))
                queries.append({"metric": metric, "host": host, **resolution, **keys})
    return {**request, "queries": queries}, places


def decode_answer(body: bytes, places: Sequence[Place], *, thinned: bool = False) -> Sequence[Series]:
    """Return the series of an answer, one for each place, or for each that the answer names.

    Average, lowest and highest are taken from the values, which have more digits than what the server
    sends of them; unless the values are `thinned`. Raises ServerError if the answer does not fit.
    """
    try:
        answer = orjson.loads(body)
        named = [Place(query["metric"], query["host"]) for query in answer.get("queries", ())]
        pairs = zip([*places, *named], answer["results"], strict=True)
        return [_series(place, found, thinned) for place, found in pairs]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServerError(f"query: the answer is not one of a metric store ({error})") from error


def _series(place: Place, found: Sequence[Mapping[str, Any]], thinned: bool) -> Series:
    if not found:
        return Series(place, is_stored=False)
    (result,) = found
    if "error" in result:
        return Series(place, error=str(result["error"]))
    values = np.array(result.get("data", ()), np.float64)
    present = values[~np.isnan(values)]
    if not len(present):
        stats = [np.nan] * 3
    elif thinned:
        stats = [float(result[key]) for key in ("avg", "min", "max")]
    else:
        stats = [float(find(present)) for find in (np.mean, np.min, np.max)]
    begin, step = int(result["from"]), int(result["resolution"])
    return Series(place, "", True, begin, step, values, *stats)
