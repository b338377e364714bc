"""The fast pass over a message: bytes in, columns of samples out, and a reason for each line that is none.

`Scan` goes over one message, or a block of one, in steps of a millisecond or less: thousands of
lines with known keys, hundreds with new ones. Each step runs the kernel over the bytes and then
does in Python what the kernel left: it finds the places of new tags, and parses odd lines with the
full grammar. It knows neither store nor clock; the server hands it who turns names into ids
(`Directory`).

Invariant: lines are independent. No field of a line has any influence on another, a bad line costs
itself alone, and what becomes of a line depends neither on what was seen before nor on where blocks
were cut.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.errors import ProtocolError
from ccstore.model import Batch, Outcome
from ccstore.wire.kernels import lines as kernels
from ccstore.wire.kernels.lines import (
    AGAIN,
    BEGIN,
    DOMAIN,
    DONE,
    KEY_STOP,
    LINE,
    LINE_STOP,
    MESSAGE,
    METRIC,
    ODD,
    PLACE,
    REFUSED,
    ROW,
    TAGS,
)
from ccstore.wire.keys import EVERYWHERE, KeyCache
from ccstore.wire.lineprotocol import (
    Line,
    end_of_bad_line,
    merge_tags,
    parse_line,
    place_of,
    seconds_of,
    split_measurement,
    split_plain_tags,
    value_of,
)

__all__ = ["MAX_NAME", "MAX_REJECTS", "SPARE_BYTES", "Directory", "Reject", "Scan", "Scanner"]

SPARE_BYTES = 8
"""How far the bytes of a message go on behind its end, whatever they are."""

MAX_REJECTS = 20
"""How many lines of a step, or of a message, are explained; all are counted."""

MAX_NAME = 100
"""Bytes up to which the name of an unknown metric, and what follows it, are looked at."""

_ROWS = 8192
_TODO = 512  # a line with a new key costs 1 to 2 us
_AHEAD = 32
_RECENT = 4096
_QUOTED_WORK = 256  # one more call of the kernel
_MAX_PLACES = 65536  # places that are remembered by the raw bytes of their tags

_Key = tuple[int, int, int, int]
"""Something to be learned: where its bytes begin and end, what they mean, and in which domain."""

_Entry = list[int]
"""A row of `todo`: a line that the kernel left."""


class Directory(Protocol):
    """Who gives ids to places and series."""

    @property
    def metric_ids(self) -> Mapping[str, int]:
        """The ids of the metrics by name; always the same."""

    def combines(self, cluster: str, metric: int) -> bool:
        """Tell whether a metric has an aggregation in a cluster."""

    def locate(self, path: tuple[str, ...], *, create: bool = True) -> int:
        """Return the id of a place, -1 if there is none and none can be made."""

    def enlist(
        self, places: NDArray[np.int32], metrics: NDArray[np.int32], *, allowance: int
    ) -> tuple[NDArray[np.int32], int]:
        """Return the ids of series, -1 for those that may not be made, and how many were made."""


@frozen
class Reject:
    """A line that was not stored, and why."""

    message: int
    """Counted from 0 in the scan."""
    line: int
    """Counted from 1 in what was scanned of its message."""
    outcome: Outcome
    reason: str


class Scanner:
    """What all scans of one store share: what was learned so far, and the columns that each step writes.

    keys: for the series of whole keys.
    max_line_bytes: a longer line has the outcome LIMIT.
    """

    def __init__(self, keys: KeyCache, directory: Directory, *, max_line_bytes: int = 128 * 1024) -> None:
        self.keys = keys
        self.directory = directory
        self.max_line_bytes = max_line_bytes
        self.collapsed = 0
        """Lines parsed so far, each with a new key, whose subtype was dropped, so that several may
        mean one series."""
        self.names = _remember_names(directory.metric_ids)
        """For the ids of metrics by their names."""
        self.places = KeyCache(max_keys=_MAX_PLACES, seed=keys.seed)
        """For the ids of places, or REFUSED, by the tags of lines, where all metrics have the same."""
        self.batch = Batch(
            _ROWS,
            np.empty(_ROWS, np.int32),
            np.empty(_ROWS, np.int64),
            np.empty(_ROWS, np.float32),
            np.empty(_ROWS, np.uint8),
        )
        self.todo = np.empty((_TODO, kernels.ENTRY), np.int64)
        self.ahead = np.empty((_AHEAD, kernels.AHEAD), np.int64)
        self.recent = np.empty(_RECENT, np.int64)

    def forget_places(self) -> None:
        """Forget the ids of places: some of them are not valid any more."""
        self.places.clear()


class Scan:
    """One pass over messages that lie in one piece of memory, or over a block of one message.

    data: uint8[at least all stops + SPARE_BYTES].
    starts, stops: int64 each; message m is data[starts[m]:stops[m]], and nothing else is looked at.
    now: what a line without a time gets, in seconds.
    default_cluster: the cluster of lines that name none.
    final: whether the message ends at its stop. If not, it is a block that was cut anywhere: what
        lies at `position` when the scan is done belongs in front of the next block. It is a line
        without its newline, or at most `max_line_bytes` that begin with a line in which a string
        may be open.
    """

    def __init__(
        self,
        scanner: Scanner,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        *,
        now: int,
        default_cluster: str = "",
        final: bool = True,
    ) -> None:
        assert not len(starts) or len(data) >= np.max(stops) + SPARE_BYTES, "spare bytes behind the messages"
        assert final or len(starts) == 1, "a block is of one message"
        self._scanner = scanner
        self._data = data
        self._bytes = data.data
        self._starts = starts
        self._ends = stops
        self._stops = stops if final else np.array([kernels.end_of_lines(data, starts[0], stops[0])])
        self._now = now
        self._cluster = default_cluster
        self._domain = scanner.keys.domain(default_cluster)
        self._final = final
        self._located: list[_Key] = []
        self._progress = np.zeros(kernels.PROGRESS, np.int64)
        self._progress[kernels.PREVIOUS] = -1
        self.done = not len(starts)
        """True when nothing is left to do, or nothing that can be done without the next block."""
        self.rejects: list[Reject] = []
        """Lines that the last step did not take, the first of them: at most MAX_REJECTS. There is
        none for a line of an unknown measurement, nor for one whose key is known to be refused."""
        if not self.done:
            self._progress[kernels.POSITION] = starts[0]

    @property
    def position(self) -> int:
        """The offset of the first byte that is not done yet."""
        return int(self._progress[kernels.POSITION])

    def step(self, *, allowance: int) -> tuple[Batch, int]:
        """Go on for at most some thousand lines; return them, and how many series were made.

        At most `allowance` series are made, and no more places than these need; it is for the
        caller to keep it within the room that is left. The batch is valid until the next step of
        any scan of the scanner.
        """
        scanner, progress = self._scanner, self._progress
        batch = scanner.batch
        self.rejects = []
        progress[kernels.ROWS] = progress[kernels.WORK] = made = 0
        while not self.done:
            progress[kernels.TODO] = 0
            kernels.scan_lines(
                scanner.keys.columns, scanner.names.columns, scanner.places.columns,
                self._data, self._starts, self._stops, self._domain, self._now, scanner.max_line_bytes,
                batch.series, batch.times, batch.values, batch.outcomes,
                scanner.todo, scanner.ahead, scanner.recent, progress,
            )  # fmt: skip
            made += self._take_todo(allowance - made)
            self.done = bool(progress[kernels.PART] >= len(self._starts))
            if not progress[kernels.QUOTED]:
                break
            made += self._take_quoted(allowance - made)
        self._learn_places()
        count = int(progress[kernels.ROWS])
        return Batch(count, batch.series, batch.times, batch.values, batch.outcomes), made

    def unknown_metrics(self, batch: Batch, *, lines: int) -> set[str]:
        """Return the measurements of the first so many lines of the last step that name an unknown one.

        None that is longer than MAX_NAME, or that cannot be printed.
        """
        rows = np.flatnonzero(batch.outcomes[: batch.count] == Outcome.UNKNOWN_METRIC)[:lines]
        stop = int(np.max(self._ends))
        found = (
            split_measurement(self._bytes, begin, min(begin + MAX_NAME, stop))
            for begin in batch.times[rows].tolist()
        )
        return {name for name in found if name and name.isprintable()}

    # --- what the kernel left

    def _take_todo(self, allowance: int) -> int:
        """Do the lines that the kernel left; return how many series were made."""
        scanner = self._scanner
        todo = scanner.todo[: self._progress[kernels.TODO]]
        made = self._take_odd(todo, allowance)
        if (todo[:, PLACE] == AGAIN).any():
            self._learn_places()
            kernels.find_again(scanner.places.columns, self._data, self._domain, scanner.batch.outcomes, todo)
            made += self._take_odd(todo, allowance - made)
        return made + self._find_series(todo, allowance - made)

    def _take_odd(self, todo: NDArray[np.int64], allowance: int) -> int:
        """Do the entries that are ODD, up to their place; return how many series had to be made meanwhile."""
        made, waiting = 0, int(np.count_nonzero(todo[:, PLACE] >= 0))
        odd = np.flatnonzero(todo[:, PLACE] == ODD)
        for k, entry in zip(odd.tolist(), todo[odd].tolist(), strict=True):
            if made < allowance <= made + waiting:  # those that wait may have no need of new series
                made += self._find_series(todo, allowance - made)
                waiting = 0
            self._take_entry(entry, create=made < allowance)
            if entry[TAGS] < 0:  # seldom: this copies ten times as slowly
                todo[k] = entry
            todo[k, PLACE], todo[k, DOMAIN] = entry[PLACE], entry[DOMAIN]
            waiting += 1
        return made

    def _take_entry(self, entry: _Entry, *, create: bool) -> None:
        """Do a line with something new or odd."""
        begin, key_stop, stop = entry[BEGIN], entry[KEY_STOP], entry[LINE_STOP]
        if key_stop >= 0:
            tags = split_plain_tags(bytes(self._bytes[entry[TAGS] : key_stop]).decode())
            if tags is not None:
                self._locate(entry, tags, create=create)
                return
        if stop - begin > self._scanner.max_line_bytes:
            self._reject(entry, Outcome.LIMIT, f"line of {stop - begin} bytes")
            return
        stop = min(stop + 1, int(self._stops[entry[MESSAGE]]))  # with its newline if it has one
        self._take_line(entry, *self._parse(begin, stop), create=create)

    def _take_quoted(self, allowance: int) -> int:
        """Do the next line, which has a quote and may go on behind its first newline.

        Return how many series were made.
        """
        progress, limit = self._progress, self._scanner.max_line_bytes
        begin, part = self.position, int(progress[kernels.PART])
        stop = min(int(self._ends[part]), begin + limit + 1)
        line, wrong = self._parse(begin, stop)
        after = line.stop if line else end_of_bad_line(self._bytes, begin, int(self._stops[part]))
        ended = not wrong and self._bytes[after - 1] == ord("\n")
        if not (ended or self._final or stop - begin > limit):
            self.done = True
            return 0
        entry = [ODD] * kernels.ENTRY
        entry[ROW], entry[BEGIN], entry[LINE_STOP] = int(progress[kernels.ROWS]), begin, stop
        entry[MESSAGE], entry[LINE] = part, int(progress[kernels.LINES]) + 1
        if line and not ended and stop - begin > limit:
            after = end_of_bad_line(self._bytes, begin, int(self._stops[part]))
            self._reject(entry, Outcome.LIMIT, f"line of more than {limit} bytes")
        else:
            self._take_line(entry, line, wrong, create=allowance > 0)
        progress[kernels.ROWS] += 1
        progress[kernels.LINES] += 1
        progress[kernels.WORK] += after - begin + _QUOTED_WORK
        progress[kernels.POSITION] = after
        return self._find_series(np.array([entry], np.int64), allowance)

    def _parse(self, begin: int, stop: int) -> tuple[Line | None, str]:
        """Parse a line with the full grammar; return it, or None and what is wrong with it if anything is."""
        try:
            return parse_line(self._bytes, begin, stop), ""
        except ProtocolError as error:
            return None, str(error)

    def _take_line(self, entry: _Entry, line: Line | None, wrong: str, *, create: bool) -> None:
        """Give a line its outcome, or fill its row and find its place."""
        metrics = self._scanner.directory.metric_ids
        name = line.measurement if line else split_measurement(self._bytes, entry[BEGIN], entry[LINE_STOP])
        if name is not None and name not in metrics:
            self._decide(entry, Outcome.UNKNOWN_METRIC)
            self._scanner.batch.times[entry[ROW]] = entry[BEGIN]  # as the kernel does
        elif wrong:
            self._reject(entry, Outcome.BAD_LINE, wrong)
        elif line is None:
            self._decide(entry, Outcome.BLANK)
        else:
            batch, row = self._scanner.batch, entry[ROW]
            try:
                batch.values[row] = value_of(line)
                batch.times[row] = self._now if line.timestamp is None else seconds_of(line.timestamp)
                tags = merge_tags(line.tags)
            except ProtocolError as error:
                self._reject(entry, Outcome.BAD_LINE, str(error))
                return
            entry[BEGIN], entry[KEY_STOP], entry[TAGS] = line.key_start, line.key_stop, -1
            entry[METRIC] = metrics[line.measurement]
            self._locate(entry, tags, create=create)

    def _reject(self, entry: _Entry, outcome: Outcome, reason: str) -> None:
        """Give a row its outcome, and note why."""
        self._decide(entry, outcome)
        if len(self.rejects) < MAX_REJECTS:
            self.rejects.append(Reject(entry[MESSAGE], entry[LINE], outcome, reason))

    def _decide(self, entry: _Entry, outcome: Outcome) -> None:
        """Give a row its outcome."""
        self._scanner.batch.series[entry[ROW]] = -1
        self._scanner.batch.outcomes[entry[ROW]] = outcome
        entry[PLACE] = DONE

    # --- from names to ids

    def _locate(self, entry: _Entry, tags: Mapping[str, str], *, create: bool) -> None:
        """Find the place of an entry by its tags, or refuse it; remember what the raw bytes mean."""
        scanner = self._scanner
        combines = scanner.directory.combines(tags.get("cluster", self._cluster), entry[METRIC])
        place = place_of(tags, default_cluster=self._cluster, combines=combines)
        number, domain = REFUSED, EVERYWHERE if place.tagged else self._domain
        if place.refused:
            self._reject(entry, Outcome.REFUSED_COMPONENT, place.refused)
        else:
            number = scanner.directory.locate(place.path, create=create)
            if number < 0:
                self._reject(entry, Outcome.LIMIT, "too many new series")
                return
            scanner.collapsed += place.collapsed
            entry[PLACE], entry[DOMAIN] = number, domain
        if entry[TAGS] >= 0 and not place.by_metric:
            self._located.append((entry[TAGS], entry[KEY_STOP], number, domain))

    def _find_series(self, todo: NDArray[np.int64], allowance: int) -> int:
        """Give the entries that have a place their series; return how many series were made."""
        scanner = self._scanner
        entries = todo[todo[:, PLACE] >= 0]
        if not len(entries):
            return 0
        todo[:, PLACE] = np.minimum(todo[:, PLACE], DONE)
        ids, made = scanner.directory.enlist(
            entries[:, PLACE].astype(np.int32),
            entries[:, METRIC].astype(np.int32),
            allowance=max(allowance, 0),
        )
        for entry in entries[ids < 0].tolist():
            self._reject(entry, Outcome.LIMIT, "too many new series")
        entries, ids = entries[ids >= 0], ids[ids >= 0]
        scanner.batch.series[entries[:, ROW]] = ids
        starts, stops = entries[:, BEGIN].copy(), entries[:, KEY_STOP].copy()
        scanner.keys.learn(self._data, starts, stops, ids, entries[:, DOMAIN].astype(np.int32))
        return made

    def _learn_places(self) -> None:
        """Learn which tags mean which place; begin anew if there is no room for more."""
        places, located = self._scanner.places, self._located
        if located:
            starts, stops, numbers, domains = np.array(list(zip(*located, strict=True)), np.int64)
            if not places.learn(
                self._data, starts, stops, numbers.astype(np.int32), domains.astype(np.int32)
            ):
                places.clear()
            located.clear()


def _remember_names(metric_ids: Mapping[str, int]) -> KeyCache:
    """Return a cache of the ids of all metrics by name; names that are too long for it are left out."""
    names = [name.encode() for name in metric_ids]
    sizes = np.array([len(name) for name in names], np.int64)
    cache = KeyCache(max_keys=1 + len(names) + int(sizes.sum()) // 64)  # 96 bytes for each
    stops = np.cumsum(sizes)
    cache.learn(
        np.frombuffer(b"".join(names) + bytes(SPARE_BYTES), np.uint8),
        stops - sizes,
        stops,
        np.array(list(metric_ids.values()), np.int32),
        np.full(len(names), EVERYWHERE, np.int32),
    )
    return cache
