"""A stream as a program sees it: updates one after the other, and what they add up to.

Invariant: between two updates, `Stream.values` is what the query answered when the latest of them was made,
whatever became of connections meanwhile. Cancelling the wait for an update loses nothing.
"""

import math
import ssl
from collections.abc import Mapping
from typing import Any

import numpy as np
import trio
from numpy.typing import NDArray

from ccstore.client.link import Subscription
from ccstore.client.messages import Change, Data, JobEnd, Node, NodeUpdate, Series, Update, decode_data

__all__ = ["NodeStream", "Stream"]


class Stream(Subscription[Update]):
    """Values of a query, or of a job, as long as one likes; made by `Client.stream` and `Client.stream_job`.

    ``async for update in stream`` waits for what is new. The first update holds what is stored. It ends
    when the job does. Raises ServerError when the store refuses the stream or its token, or shows a
    certificate that is not trusted; a store that cannot be reached is tried again for ever.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        verify: ssl.SSLContext | None,
        nursery: trio.Nursery,
        wanted: Mapping[str, Any],
    ) -> None:
        super().__init__(url, headers, verify, nursery, wanted)
        self.series: dict[int, Series] = {}
        """What values are told of, by index."""
        self.start = 0
        """Seconds since the epoch: what was before is forgotten."""
        self.job: Mapping[str, Any] = {}
        """The job, as ``/api/jobs`` answers it; empty for a query, and before the first update."""
        self.ended: JobEnd | None = None
        """How the job ended; None if it runs, and for a query."""
        self._values: dict[int, dict[int, float]] = {}
        self._pending: list[Data] = []
        self._reset = False

    def values(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return times and values of a series, in the order of the times."""
        pairs = sorted(self._values.get(index, {}).items())
        return np.array([t for t, _ in pairs], np.int64), np.array([value for _, value in pairs], np.float64)

    def latest(self, index: int) -> tuple[int, float] | None:
        """Return time and value of the newest sample of a series, None if there is none."""
        values = self._values.get(index)
        return (newest := max(values), values[newest]) if values else None

    # --- what comes

    def _take_binary(self, frame: bytes) -> Update | None:
        self._pending.append(decode_data(frame))
        return self._complete() if self._pending[-1].token else None

    def _take(self, message: Mapping[str, Any]) -> Update | None:
        match message["op"]:
            case "subscribed":
                self.job = message.get("job", {})
            case "series":
                self._describe(message)
            case "ended":
                self.ended = JobEnd(message["state"], message["stopTime"])
                self._is_over = True
        return None

    def _drop_pending(self) -> None:
        self._pending.clear()

    def _describe(self, message: Mapping[str, Any]) -> None:
        if message["reset"]:
            self._reset = True
            self._token = ""  # what it stood for is forgotten
            self.series.clear()
            self._values.clear()
        for described in message["series"]:
            series = Series.of(described)
            self.series[series.index] = series

    def _complete(self) -> Update:
        """Take all messages that belong together."""
        changes = []
        for data in self._pending:
            for index, times, values in data.rows:
                changes.append(Change(self.series[index], times, values))
                known = self._values.setdefault(index, {})
                for time, value in zip(times.tolist(), values.tolist(), strict=True):
                    if math.isnan(value):
                        known.pop(time, None)
                    else:
                        known[time] = value
        last, reset = self._pending[-1], self._reset
        self._pending.clear()
        self._token, self._reset = last.token, False
        if last.start > self.start:
            self.start = last.start
            for known in self._values.values():
                for time in [time for time in known if time < last.start]:
                    del known[time]
        return Update(changes, last.start, reset)


class NodeStream(Subscription[NodeUpdate]):
    """The nodes of a cluster, as long as one likes; made by `Client.stream_nodes`.

    ``async for update in stream`` waits for what is new. The first update holds all nodes. Raises ServerError
    as `Stream` does.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        verify: ssl.SSLContext | None,
        nursery: trio.Nursery,
        wanted: Mapping[str, Any],
    ) -> None:
        super().__init__(url, headers, verify, nursery, wanted)
        self.nodes: dict[str, Node] = {}
        """What is known of each node, by host."""

    def _take(self, message: Mapping[str, Any]) -> NodeUpdate | None:
        if message["op"] != "nodes":
            return None
        told = [Node.of(described) for described in message["nodes"]]
        if message["reset"]:
            self.nodes.clear()
        self.nodes |= {node.hostname: node for node in told}
        return NodeUpdate(told, message["reset"])
