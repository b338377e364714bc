"""The nouns of metrics: what is measured, where, how it travels, what is asked and answered."""

import enum
from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

__all__ = [
    "ANY",
    "Aggregation",
    "Any_",
    "Batch",
    "Health",
    "HealthRequest",
    "Metric",
    "Names",
    "NodeHealth",
    "Outcome",
    "Query",
    "QueryRequest",
    "Runs",
    "Samples",
    "Selector",
    "SeriesKey",
    "Status",
    "Window",
]


class Aggregation(enum.Enum):
    """How the components below a level combine into one value for the level."""

    NONE = ""
    SUM = "sum"
    AVG = "avg"


@frozen
class Metric:
    """A configured measurement."""

    name: str
    frequency: int
    """Seconds between two samples; the width of a slot. At least 1."""
    aggregation: Aggregation = Aggregation.NONE
    unit: str = ""
    """For people only, such as ``GB/s``; nothing is computed from it."""


@frozen
class SeriesKey:
    """What names a series: one metric at one place."""

    metric: str
    cluster: str
    host: str
    component: str = ""
    """Type and id, such as ``socket0``; empty for the host itself."""
    subcomponent: str = ""
    """Subtype and id below the component, such as ``mem1``; empty without one."""


class Any_(enum.Enum):  # noqa: N801 -- the type of ANY alone
    """The type of `ANY`."""

    ANY = "any"


ANY = Any_.ANY
"""A selector element that stands for every child."""

Selector = tuple[str | tuple[str, ...] | Any_, ...]
"""A pattern of places from cluster downwards: a name, a group of names, or `ANY` for each level."""


class Outcome(enum.IntEnum):
    """What became of a line; every line that was received ends as exactly one of the first eight."""

    STORED = 0
    OVERWRITTEN = 1
    """Stored in a slot that held a value."""
    UNKNOWN_METRIC = 2
    BAD_LINE = 3
    LATE = 4
    """Older than anything that memory can still take."""
    FUTURE = 5
    REFUSED_COMPONENT = 6
    """Without cluster or host, or with a name that no place may have."""
    LIMIT = 7
    """Beyond a configured limit."""
    BLANK = 8
    """An empty line or a comment: not counted as received."""


@frozen
class Batch:
    """Columns of samples that travel together, one row for each line, in the order of the lines.

    The arrays are scratch space that is written again by the next scan: who keeps samples copies them.
    """

    count: int
    """Rows in use; the arrays are longer."""
    series: NDArray[np.int32]
    """Series id; -1 where the outcome was decided without the store."""
    times: NDArray[np.int64]
    """Seconds since the epoch."""
    values: NDArray[np.float32]
    outcomes: NDArray[np.uint8]
    """`Outcome` of each row; where series is not -1 it is written by the store."""


@frozen
class Query:
    """One entry of a query: a metric of a host, or of some of its components."""

    metric: str = ""
    host: str = ""
    resolution: int = 0
    """Seconds between two values; at most the metric's frequency means all values."""
    type: str | None = None
    """First part of the components' names; None means the host as a whole."""
    type_ids: tuple[str, ...] = ()
    """Second parts of the components' names."""
    subtype: str | None = None
    subtype_ids: tuple[str, ...] = ()
    aggregate: bool = False
    """Whether the components are combined into one."""
    scale_by: float = 0.0
    """Factor for values and statistics; 0 and 1 change nothing."""


@frozen
class QueryRequest:
    """A batch of queries about one cluster and one range of time."""

    cluster: str = ""
    start: int = 0
    """Seconds; the range is [start, stop)."""
    stop: int = 0
    with_stats: bool = True
    with_data: bool = True
    with_padding: bool = True
    """Whether data that begin late get missing values in front."""
    queries: tuple[Query, ...] = ()
    for_all_nodes: tuple[str, ...] = ()
    """Metrics for each of which a query is added for every host of the cluster."""


class Status(enum.IntEnum):
    """What became of the read of one group of series."""

    GOOD = 0
    NOTHING = 1
    """No series matched."""
    NO_AGGREGATION = 2
    """Several series matched, and the metric has no aggregation."""
    NOT_ALIGNED = 3
    """The components have no common range (strict reference mode only)."""
    TOO_LONG = 4
    """More values than an answer may have."""
    UNKNOWN_METRIC = 5
    BAD_RANGE = 6
    """From lies behind to."""
    BAD_RESOLUTION = 7
    """The resolution asked for is no multiple of the frequency."""


@frozen
class Window:
    """Samples read back for a range: the values of several groups, one after the other.

    Group g has ``values[ends[g - 1]:ends[g]]`` (from 0 for the first), beginning at ``begins[g]``,
    ``resolutions[g]`` seconds apart.
    """

    values: NDArray[np.float64]
    """NaN where nothing was stored. A view that the next read overwrites."""
    ends: NDArray[np.int64]
    begins: NDArray[np.int64]
    """Seconds; time of the first value."""
    stops: NDArray[np.int64]
    """Seconds; end of the last slot at the metric's own frequency, whatever the resolution."""
    resolutions: NDArray[np.int64]
    statuses: NDArray[np.int8]
    stats: NDArray[np.float64]
    """float64[groups, 3]: average, minimum, maximum of the values before resampling; NaN if none."""


class Health(enum.Enum):
    """What the store sees of a host."""

    FULL = "full"
    PARTIAL = "partial"
    FAILED = "failed"


@frozen
class NodeHealth:
    """Which of the expected metrics of a host arrive."""

    state: Health
    known: bool
    """False if nothing at all is stored of the host; the lists are empty then."""
    degraded: Sequence[str] = ()
    """Metrics with at least one series whose newest slot is too old."""
    missing: Sequence[str] = ()
    """Metrics without any series."""


@frozen
class HealthRequest:
    """A question for the health of hosts."""

    cluster: str = ""
    nodes: tuple[str, ...] = ()
    metric_names: tuple[str, ...] = ()
    """The metrics that are expected of each of them."""


@frozen
class Names:
    """What new numbers of a file stand for; each list continues the file's numbering of its kind."""

    parents: NDArray[np.int32]
    """Number of each new place's parent in this file, -1 for a cluster. Parents come first."""
    place_names: Sequence[str]
    metric_names: Sequence[str]
    frequencies: NDArray[np.int64]
    """Seconds, of each new metric."""
    series_places: NDArray[np.int32]
    """Number of the place of each new series."""
    series_metrics: NDArray[np.int32]
    """Number of the metric of each new series."""


@frozen
class Samples:
    """Columns of samples in a file. Their order matters where a series occurs twice."""

    numbers: NDArray[np.int32]
    """Number of the series in the file."""
    times: NDArray[np.int64]
    """Seconds since the epoch."""
    values: NDArray[np.float32]


@frozen
class Runs:
    """Slots of chunks, one run for each stretch of consecutive slots of one chunk."""

    numbers: NDArray[np.int32]
    """Number of the series in the file."""
    starts: NDArray[np.int64]
    """Seconds; beginning of slot 0 of the chunk, which is the grid of its samples."""
    firsts: NDArray[np.int32]
    """Slot of the first value."""
    counts: NDArray[np.int32]
    """Slots of each run, 1 to 512."""
    values: NDArray[np.float32]
    """The values of all runs one after the other; NaN where nothing was stored."""
