"""Evaluation of expressions in PromQL, a block of series at a time.

An expression is a chain: a selector, then stages that work on what comes before them, up to the result.
Each stage is a generator of blocks, matrices of series and steps with the labels of the series. An
operator changes blocks as they pass; an aggregation takes all of them and then gives its groups. So a long
answer is never in memory as a whole, and between two blocks others may run: a block takes a millisecond or
two.

Values are float64, as in Prometheus. A value that is missing is told apart from one that is NaN, such as
0 / 0, by a mask. Invariant: ids of series are used where they were found, in the same turn.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ccstore.errors import QueryError
from ccstore.memory.kernels import promql as kernels
from ccstore.memory.matching import LABELS, Host, Key, Search
from ccstore.memory.store import Store
from ccstore.model.promql import (
    NAME,
    Aggregate,
    Expression,
    Negation,
    Number,
    Operation,
    Rate,
    Vector,
    is_scalar,
)

__all__ = ["MAX_KEPT", "MAX_POINTS", "Block", "Steps", "evaluate", "number_of"]

MAX_POINTS = 50_000_000
"""Series times steps that one query may read, as in Prometheus."""
MAX_KEPT = 5_000_000
"""Groups times steps that an aggregation may have: 16 bytes each, kept until it is done."""
_BLOCK = 20_000
"""Values that are made at once, about; a millisecond with what becomes of them."""
_MOST_SERIES = 500
"""Series of one block at most."""
_MOST_SLOTS = 20_000
"""Slots of a series that are expected in a range; there may be more, but rarely of many series."""

_OPERATORS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,  # the sign is that of the dividend
    "^": np.power,
}
_FUNCTIONS = {
    "sum": kernels.SUM,
    "avg": kernels.AVG,
    "min": kernels.MIN,
    "max": kernels.MAX,
    "count": kernels.COUNT,
}

Labels = dict[str, str]
_Key = tuple[tuple[str, str], ...]
_Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_SAME_LABELS = "vector cannot contain metrics with the same labelset"


@frozen
class Steps:
    """The times at which an expression is evaluated."""

    start_ms: int
    """Milliseconds since the epoch."""
    step_ms: int
    """At least 1."""
    count: int
    """At least 1."""


@frozen
class Block:
    """Some series of a vector, with their values at all steps."""

    labels: Sequence[Labels]
    """Sets of labels, sorted by name; without those that make no difference to an aggregation above."""
    of: NDArray[np.int64]
    """int64[series]: which of `labels` each series has."""
    values: NDArray[np.float64]
    """float64[series, steps]."""
    present: NDArray[np.bool_]
    """bool[series, steps]: where there is a value; it can be NaN."""


Blocks = Iterator[Block | None]
"""None tells that something was done, and nothing came of it yet."""


def number_of(expression: Expression) -> float:
    """Return the value of a scalar expression."""
    with np.errstate(all="ignore"):
        match expression:
            case Number():
                return expression.value
            case Negation():
                return -number_of(expression.operand)
            case Operation():
                left, right = np.float64(number_of(expression.left)), np.float64(number_of(expression.right))
                return float(_OPERATORS[expression.operator](left, right))
            case _:
                raise AssertionError("not a scalar")


def evaluate(store: Store, expression: Expression, steps: Steps, *, max_series: int = 0) -> Blocks:
    """Evaluate a vector, block by block.

    max_series: how many series may be selected; 0 means any number. Raises QueryError before the first
    block that is not None, if the query is too large.
    """
    return _Evaluation(store, steps, max_series).vector(expression, frozenset(LABELS), unnamed=False)


@frozen
class _Evaluation:
    """What all stages of an evaluation share."""

    store: Store
    steps: Steps
    max_series: int

    def vector(self, expression: Expression, kept: frozenset[str], *, unnamed: bool) -> Blocks:
        """Evaluate a vector, as far as the stages above want to know it.

        kept: the labels that make a difference there. unnamed: whether its series have to differ even without
        the name of their metric, because an operator comes next, which takes that away.
        """
        match expression:
            case Vector() | Rate():
                return self._select(expression, kept, unnamed=unnamed or isinstance(expression, Rate))
            case Negation():
                return self._each(np.negative, expression.operand, kept)
            case Operation():
                operator = _OPERATORS[expression.operator]
                if is_scalar(expression.left):
                    left = np.float64(number_of(expression.left))
                    return self._each(partial(operator, left), expression.right, kept)
                right = np.float64(number_of(expression.right))
                return self._each(lambda values: operator(values, right), expression.left, kept)
            case Aggregate():
                return self._aggregate(expression, kept, unnamed=unnamed)
            case _:
                raise AssertionError("not a vector")

    def _each(self, function: _Function, operand: Expression, kept: frozenset[str]) -> Blocks:
        """Apply a function to all values."""
        for block in self.vector(operand, kept - {NAME}, unnamed=True):
            with np.errstate(all="ignore"):
                yield None if block is None else evolve(block, values=function(block.values))

    # --- selectors

    def _select(self, expression: Vector | Rate, kept: frozenset[str], *, unnamed: bool) -> Blocks:
        """Read the series of a selector.

        What is selected is counted before anything is read, because an answer that has begun cannot turn into
        an error any more.
        """
        vector = expression.vector if isinstance(expression, Rate) else expression
        search = Search(self.store, vector.matchers)
        matched: list[Host] = []
        count = 0
        for hosts in search.parts():
            found = search.find(hosts)
            matched += [found.hosts[host] for host in np.unique(found.host_of).tolist()]
            count += len(found)
            if unnamed and len(np.unique(found.host_of * len(search.tails) + found.tails)) < len(found):
                raise QueryError(_SAME_LABELS)
            self._check_size(count)
            yield None
        if isinstance(expression, Rate):
            kept -= {NAME}
        for hosts in search.parts(matched):
            yield from self._read(search, hosts, expression, kept)

    def _check_size(self, count: int) -> None:
        if self.max_series and count > self.max_series:
            raise QueryError(f"query: more than {self.max_series} series (wanted a narrower selector)")
        if count * self.steps.count > MAX_POINTS:
            raise QueryError(f"query: more than {MAX_POINTS} values (wanted fewer series, or a larger step)")

    def _read(
        self, search: Search, hosts: Sequence[Host], expression: Vector | Rate, kept: frozenset[str]
    ) -> Blocks:
        """Read the series of some hosts; search again if a series came or went between two blocks."""
        read, epoch = set[Key](), -1
        left = search.find(hosts)
        while len(left):
            if epoch != self.store.index.epoch:
                epoch = self.store.index.epoch
                left = search.find(hosts).without(read)
                continue
            size = self._series_at_once(int(left.metrics[0]), expression)
            part, left = left[:size], left[size:]
            if len(left):
                read.update(part.keys())
            values = self._values(part.ids, expression)
            yield Block(*search.labels(part, kept), values, ~np.isnan(values))

    def _series_at_once(self, metric: int, expression: Vector | Rate) -> int:
        """Return how many series make a block."""
        steps, cost = self.steps, self.steps.count
        if isinstance(expression, Rate):
            span = (steps.count * steps.step_ms + expression.window_ms) // 1000
            cost += min(span // self.store.metrics[metric].frequency, _MOST_SLOTS)
        return max(1, min(_MOST_SERIES, _BLOCK // cost))

    def _values(self, ids: NDArray[np.int32], expression: Vector | Rate) -> NDArray[np.float64]:
        """Return float64[series, steps], NaN where there is no value."""
        columns, steps, values = self.store.columns, self.steps, np.empty((len(ids), self.steps.count))
        if isinstance(expression, Rate):
            kernels.rate(columns, ids, steps.start_ms, steps.step_ms, expression.window_ms, values)
        else:
            kernels.sample(columns, ids, steps.start_ms, steps.step_ms, values)
        return values

    # --- aggregations

    def _aggregate(self, expression: Aggregate, kept: frozenset[str], *, unnamed: bool) -> Blocks:
        """Combine series into groups."""
        chosen = frozenset(expression.labels)
        chosen = frozenset(LABELS) - chosen - {NAME} if expression.without else chosen
        groups = _Groups(self.steps.count)
        for block in self.vector(expression.operand, chosen, unnamed=False):
            if block is not None:
                groups.add(block, _FUNCTIONS[expression.function])
            yield None
        if unnamed and len({_key(labels, chosen - {NAME}) for labels in groups.labels}) < len(groups.labels):
            raise QueryError(_SAME_LABELS)
        size = max(1, min(_MOST_SERIES, _BLOCK // self.steps.count))
        for first in range(0, len(groups.labels), size):
            yield groups.result(slice(first, first + size), expression.function, kept)


class _Groups:
    """What an aggregation has so far; space is reserved for all it may have, memory taken as it is used."""

    def __init__(self, steps: int) -> None:
        self.labels: list[Labels] = []
        self._totals = np.zeros((MAX_KEPT // steps, steps))
        self._counts = np.zeros((MAX_KEPT // steps, steps), np.int64)  # how many values are in a total
        self._numbers: dict[_Key, int] = {}

    def add(self, block: Block, function: int) -> None:
        """Add series to the groups of their labels. Raises QueryError if there are too many groups."""
        numbers = np.array([self._number(labels) for labels in block.labels], np.int64)[block.of]
        kernels.combine(block.values, block.present, numbers, function, self._totals, self._counts)

    def _number(self, labels: Labels) -> int:
        key = tuple(labels.items())
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self.labels)
            if known == len(self._totals):
                raise QueryError(
                    f"query: more than {MAX_KEPT} values of groups (wanted fewer groups or steps)"
                )
            self.labels.append(labels)
        return known

    def result(self, part: slice, function: str, kept: frozenset[str]) -> Block:
        """Return some groups, with the labels that make a difference to what follows."""
        labels = [dict(_key(labels, kept)) for labels in self.labels[part]]
        values, counts = self._totals[part][: len(labels)], self._counts[part][: len(labels)]
        if function == "count":
            values = counts.astype(np.float64)
        elif function == "avg":
            values = values / np.maximum(counts, 1)
        return Block(labels, np.arange(len(labels)), values, counts > 0)


def _key(labels: Labels, kept: frozenset[str]) -> _Key:
    return tuple((name, value) for name, value in labels.items() if name in kept)
