"""The way in: bytes -> samples in memory, the same for HTTP and NATS.

Owns the order of the steps: wait for room in the log, scan some lines, append them, log what was
stored, enter each in the ledger, let others run, go on. What was appended is visible to queries at
once; a body is answered when it is on disk. A full log makes the sender wait.

Invariant: between a step of a scan and the end of the use of its batch, whose columns all scans share,
nobody else runs. So a line is appended, logged and entered, or nothing of this, also if the writer
is cancelled.
"""

import itertools
import logging
import math
from collections.abc import Callable

import numpy as np
import trio
from attrs import define, field
from numpy.typing import NDArray

from ccstore.config import LimitsConfig
from ccstore.errors import BusyError, CcstoreError, ProtocolError, UnavailableError
from ccstore.memory.store import Store
from ccstore.model import Batch, Outcome
from ccstore.server.answers import HttpError
from ccstore.server.body import BodyBlocks
from ccstore.server.ledger import Counts, Ledger, count_outcomes
from ccstore.server.wal import PATIENCE, Log
from ccstore.wire.nats_message import Messages
from ccstore.wire.scan import MAX_REJECTS, Reject, Scan, Scanner

__all__ = ["Intake", "Written"]

log = logging.getLogger("ccstore.ingest")

MAX_UNKNOWN = 100
"""Names of unknown metrics that are kept, to be shown."""
_LOOK = 1.0
"""Seconds between two looks at what is unknown: a site may send as many such lines as good ones."""
_LINES_LOOKED_AT = 256
_REJECTED = [Outcome.BAD_LINE, Outcome.REFUSED_COMPONENT, Outcome.LIMIT]


@define(eq=False)
class Written:
    """What became of a message."""

    reached: list[int]
    """Of each shard of the log, the position behind what was stored."""
    counts: Counts = field(factory=lambda: np.zeros(len(Outcome), np.int64))
    rejects: list[Reject] = field(factory=list)
    """The first lines that were not stored for a reason of their own; at most MAX_REJECTS."""
    position: int = 0
    """The offset of the first byte that was not used."""
    ended_by: CcstoreError | None = None
    """Why the rest of a body was not written."""

    @property
    def stored(self) -> int:
        """How many lines were stored."""
        return int(self.counts[[Outcome.STORED, Outcome.OVERWRITTEN]].sum())

    @property
    def rejected(self) -> int:
        """How many lines were not stored for a reason of their own; `rejects` are the first of them."""
        return int(self.counts[_REJECTED].sum())

    @property
    def lines(self) -> int:
        """How many lines were looked at, blank ones included."""
        return int(self.counts.sum())

    def add(self, other: "Written") -> None:
        """Add what became of a later part of the message."""
        before = self.lines
        self.counts += other.counts
        self.reached = [max(pair) for pair in zip(self.reached, other.reached, strict=True)]
        for reject in other.rejects[: MAX_REJECTS - len(self.rejects)]:
            self.rejects.append(Reject(reject.message, before + reject.line, reject.outcome, reject.reason))


class Intake:
    """Writes messages into the store.

    now: tells the wall clock in whole seconds; a line without a time gets what it told when its
        message began.
    wal: where what is stored is logged; None if it lives in memory alone.
    waits: whether a body is answered only when it is on disk.
    note: is told of every batch that was appended.
    """

    def __init__(
        self, store: Store, scanner: Scanner, ledger: Ledger, *, limits: LimitsConfig,
        future_bound: float, now: Callable[[], int], wal: Log | None = None, waits: bool = True,
        note: Callable[[Batch], None] | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.scanner = scanner
        self.ledger = ledger
        self.now = now
        self.refused_bodies = 0
        """Bodies that were not written to their end: too large, or nothing came for too long."""
        self.cut_bodies = 0
        """Bodies whose sender left in the middle."""
        self._wal = wal
        self._waits = waits
        self._note = note
        self._future_bound = int(future_bound)
        self._allowance = _Allowance(limits.new_series_per_second)
        self._next_look = -math.inf
        self.unknown_metrics: dict[str, None] = {}
        """The first names of metrics that are not configured, in the order in which they were noticed;
        at most MAX_UNKNOWN, each cut."""

    async def write(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        *,
        source: str,
        default_cluster: str,
        now: int,
        final: bool = True,
        patience: float = math.inf,
    ) -> Written:
        """Write the messages data[starts[m]:stops[m]], as `Scan` takes them; enter them as from `source`.

        Raises BusyError if the log has no room for longer than `patience` (s); then a part is written.
        """
        scan = Scan(self.scanner, data, starts, stops, now=now, default_cluster=default_cluster, final=final)
        written = self._nothing()
        while not scan.done:
            if self._wal is not None:
                await self._wal.room(patience)
            batch, made = scan.step(allowance=self._series_allowed())
            self._allowance.spend(made)
            self.store.append(batch, latest=now + self._future_bound)
            if self._wal is not None:
                self._wal.put(batch, written.reached)
            if self._note is not None:
                self._note(batch)
            counts = count_outcomes(batch)
            self.ledger.add(source, counts)
            if counts[Outcome.UNKNOWN_METRIC]:
                self._look_at_unknown(scan, batch)
            written.counts += counts
            written.rejects += scan.rejects[: MAX_REJECTS - len(written.rejects)]
            await trio.lowlevel.checkpoint()
        written.position = scan.position
        return written

    def _series_allowed(self) -> int:
        """Return how many series the next step may make.

        No more than there is room for, or places would be made for series that then cannot be.
        """
        statistics = self.store.statistics()
        return min(self._allowance.left(), statistics.max_series - statistics.series)

    async def write_body(self, open_body: Callable[[], BodyBlocks], *, default_cluster: str) -> Written:
        """Write the body of a request as it comes in.

        Only whole lines are written: where a body is cut or refused in the middle of a line, that line
        is not, and is not counted either. `Written.ended_by` tells what ended it early.
        """
        written = self._nothing()
        try:
            await self._write_blocks(open_body(), written, default_cluster)
        except ProtocolError as error:
            self.cut_bodies += 1
            written.ended_by = error
        except (HttpError, BusyError) as error:
            self.refused_bodies += 1
            written.ended_by = error
        if self._wal is not None and self._waits:
            try:
                await self._wal.durable(written.reached)
            except UnavailableError as error:
                written.ended_by = error
        return written

    def _nothing(self) -> Written:
        return Written([0] * (len(self._wal.shards) if self._wal is not None else 0))

    async def _write_blocks(self, blocks: BodyBlocks, written: Written, default_cluster: str) -> None:
        now, limit, skipping = self.now(), self.scanner.max_line_bytes, False
        async for block in blocks:
            start = 0
            if skipping:  # the rest of a line that is too long
                start = block.data.find(b"\n", 0, block.size) + 1
                if not start:
                    continue
                skipping = False
            part = await self.write(
                np.frombuffer(block.data, np.uint8), np.array([start]), np.array([block.size]),
                source="http", default_cluster=default_cluster, now=now, final=block.last, patience=PATIENCE,
            )  # fmt: skip
            written.add(part)
            rest = block.size - part.position
            if rest > limit and not block.last:
                written.add(self._refuse_line())
                rest, skipping = 0, True
            blocks.keep(rest)

    def _refuse_line(self) -> Written:
        """Enter a line that is longer than a line may be, before its end has come."""
        reason = f"line of more than {self.scanner.max_line_bytes} bytes"
        refused = self._nothing()
        refused.rejects.append(Reject(0, 1, Outcome.LIMIT, reason))
        refused.counts[Outcome.LIMIT] = 1
        self.ledger.add("http", refused.counts)
        return refused

    async def write_messages(self, messages: Messages) -> None:
        """Write messages that came over NATS, in their order; log what was not stored of each."""
        now = self.now()
        data = np.frombuffer(messages.segment, np.uint8)
        starts = np.frombuffer(messages.starts, np.int64)
        stops = np.frombuffer(messages.stops, np.int64)
        clusters = [envelope.subscription.default_cluster for envelope in messages.envelopes]
        first = 0
        for default_cluster, group in itertools.groupby(clusters):
            last = first + len(list(group))
            written = await self.write(
                data, starts[first:last], stops[first:last],
                source="nats", default_cluster=default_cluster, now=now,
            )  # fmt: skip
            for message, rejects in itertools.groupby(written.rejects, lambda reject: reject.message):
                self._complain(messages[first + message].subject, list(rejects))
            first = last

    def _look_at_unknown(self, scan: Scan, batch: Batch) -> None:
        """Note new names of unknown metrics now and then, and log them: they may be missing in the table."""
        now = trio.current_time()
        if now < self._next_look or len(self.unknown_metrics) >= MAX_UNKNOWN:
            return
        names = scan.unknown_metrics(batch, lines=_LINES_LOOKED_AT)
        self._next_look = now + _LOOK
        new = sorted(names - self.unknown_metrics.keys())[: MAX_UNKNOWN - len(self.unknown_metrics)]
        self.unknown_metrics |= dict.fromkeys(new)
        if new:
            log.info(
                "metrics that are not configured, and not stored: %(metrics)s",
                {"metrics": ", ".join(map(repr, new))},
            )

    def _complain(self, subject: str, rejects: list[Reject]) -> None:
        """Log the first line of a message that was not stored."""
        reject, more = rejects[0], f" (and {len(rejects) - 1} or more lines)" if len(rejects) > 1 else ""
        fields = {"subject": subject, "line": reject.line, "reason": reject.reason, "more": more}
        log.warning("nats: message on %(subject)s: line %(line)d: %(reason)s%(more)s", fields)


class _Allowance:
    """How many series may be made: so many a second, and at once what a second allows; 0 means any number."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._since = -math.inf

    def left(self) -> int:
        if not self._per_second:
            return 2**31 - 1
        now = trio.current_time()
        self._left = min(self._left + (now - self._since) * self._per_second, float(self._per_second))
        self._since = now
        return int(self._left)

    def spend(self, made: int) -> None:
        self._left -= made
