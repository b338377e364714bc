"""Queries and their answers as JSON, in the reference store's form to the digit.

An answer is written in pieces, so that its size is nobody's problem: those of `AnswerWriter.begin`,
then rows for each window that was read, then `end`. A row is one result object; which list it goes
into depends on its query's number. Values have three decimals, statistics two, NaN is null.

It knows windows and names, not the store they come from. Invariant: the pieces together are one
JSON value, whatever was read.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import orjson
from attrs import evolve
from numpy.typing import NDArray

from ccstore.model import QueryRequest, Status, Window
from ccstore.wire.jsonvalue import decode_value, structure
from ccstore.wire.kernels import answers

__all__ = ["AnswerWriter", "decode_query", "explain"]

_MAX_TIME = 2**60  # s; sums of times with steps stay within 64 bits
_QUERIES = 1000  # in one piece of the head
_NO_OBJECT = -1
_NO_VALUES = np.empty(0)
_ERRORS = {
    Status.NO_AGGREGATION: "several components, and the metric has no aggregation (wanted one component)",
    Status.NOT_ALIGNED: "data from lower granularities does not align",
    Status.TOO_LONG: "more values than one answer may have (wanted a shorter range or a coarser metric)",
    Status.BAD_RANGE: "invalid time range (wanted from <= to)",
    Status.BAD_RESOLUTION: "resolution (wanted a multiple of the metric's frequency)",
}


def decode_query(body: bytes) -> QueryRequest:
    """Return the query that a request's body asks for. Raises ProtocolError."""
    request = structure(decode_value(body), QueryRequest)
    start, stop = (max(-_MAX_TIME, min(time, _MAX_TIME)) for time in (request.start, request.stop))
    return evolve(request, start=start, stop=stop)


class AnswerWriter:
    """Writes the answer to one query.

    hosts: the hosts that the queries for all nodes are for, in the order of their queries.
    strict: write no placeholder for a component that is missing.
    max_values: a row that would get more values, padding included, is an error.
    """

    def __init__(
        self,
        request: QueryRequest,
        hosts: Sequence[str],
        *,
        strict: bool = False,
        max_values: int = 1_000_000,
    ) -> None:
        self._request = request
        self._hosts = hosts
        self._strict = strict
        self._max_values = max_values
        self._queries = len(request.queries) + len(hosts) * len(request.for_all_nodes)
        self._progress = np.array([-1, 0], np.int64)
        self._limbs = np.empty(answers.LIMBS, np.int64)
        self._room = np.empty(1 << 16, np.uint8)

    def begin(self) -> Iterator[bytes]:
        """Yield everything in front of the first row, in pieces of a fraction of a millisecond each."""
        heads = [b'{"metric":' + orjson.dumps(metric) + b',"host":' for metric in self._request.for_all_nodes]
        if not (heads and self._hosts):
            yield b'{"results":['
            return
        separator, step = b'{"queries":[', max(1, _QUERIES // len(heads))
        for first in range(0, len(self._hosts), step):
            tails = [
                orjson.dumps(host) + b',"resolution":0,"aggreg":false}'
                for host in self._hosts[first : first + step]
            ]
            yield separator + b",".join([head + tail for tail in tails for head in heads])
            separator = b","
        yield b'],"results":['

    def rows(
        self,
        window: Window,
        metrics: Sequence[str],
        queries: NDArray[np.int64],
        placeholders: NDArray[np.bool_],
    ) -> bytes:
        """Return the rows of one window.

        metrics, queries and placeholders tell of each group its metric, which query it belongs to,
        in ascending order over all windows, and whether it has a row even if nothing matched.
        """
        request = self._request
        values, ends = (window.values, window.ends) if request.with_data else (_NO_VALUES, 0 * window.ends)
        stats = window.stats if request.with_stats else np.zeros_like(window.stats)
        integers = np.column_stack([window.begins, window.stops, window.resolutions])
        pads = self._count_pads(window)
        missing = window.statuses == Status.NOTHING
        shown = missing & placeholders & (not self._strict)
        integers[shown, :2] = request.start
        pads[missing & ~shown] = _NO_OBJECT
        statuses = window.statuses
        too_long = (statuses == Status.GOOD) & (np.diff(ends, prepend=0) + pads > self._max_values)
        wrong = too_long | ((statuses != Status.GOOD) & ~missing)
        notes = [b""] * len(metrics)
        if wrong.any():
            statuses, stats = np.where(too_long, np.int8(Status.TOO_LONG), statuses), stats.copy()
            integers[wrong], stats[wrong], pads[wrong] = 0, 0.0, 0
            for g in np.flatnonzero(wrong).tolist():
                notes[g] = _note(Status(statuses[g]), metrics[g])
        return self._encode(values, ends, integers, stats, pads, queries, notes)

    def end(self) -> bytes:
        """Return everything behind the last row."""
        opened = int(self._progress[0])
        lists = b"]" if opened >= 0 else b"[]" if self._queries else b""
        return lists + b",[]" * (self._queries - 1 - max(opened, 0)) + b"]}"

    def _count_pads(self, window: Window) -> NDArray[np.int64]:
        """Return how many values are missing between the time that was asked for and the first value."""
        if not (self._request.with_padding and self._request.with_data):
            return np.zeros(len(window.ends), np.int64)
        steps = window.resolutions
        pads = _quotient(window.begins, steps) - _quotient(np.int64(self._request.start), steps)
        return np.where(window.statuses == Status.GOOD, np.maximum(pads, 0), 0)

    def _encode(
        self,
        values: NDArray[np.float64],
        ends: NDArray[np.int64],
        integers: NDArray[np.int64],
        stats: NDArray[np.float64],
        pads: NDArray[np.int64],
        queries: NDArray[np.int64],
        notes: Sequence[bytes],
    ) -> bytes:
        text = np.frombuffer(b"".join(notes), np.uint8)
        note_ends = np.cumsum([len(note) for note in notes], dtype=np.int64)
        while True:
            written = answers.encode_rows(
                values, ends, integers, stats, pads, queries, text, note_ends,
                self._room, self._limbs, self._progress,
            )  # fmt: skip
            if written >= 0:
                return self._room[:written].tobytes()
            self._room = np.empty(2 * len(self._room), np.uint8)


def _quotient(times: NDArray[np.int64] | np.int64, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide towards zero, as the reference store does."""
    return np.asarray(np.sign(times) * (np.abs(times) // steps))


def explain(status: Status, metric: str) -> str:
    """Return why the series of a metric could not be read; empty if they could, or if there are none."""
    return f"unknown metric: {metric}" if status is Status.UNKNOWN_METRIC else _ERRORS.get(status, "")


def _note(status: Status, metric: str) -> bytes:
    return b'"error":' + orjson.dumps(explain(status, metric)) + b","
