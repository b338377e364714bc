"""PromQL in plain Python, value by value, over samples in dictionaries: the oracle of the real one."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from memory_tools import contents

from ccstore.memory.store import Store
from ccstore.model.promql import Aggregate, Expression, Matcher, Negation, Number, Operation, Rate, Vector

Labels = tuple[tuple[str, str], ...]
Samples = dict[int, float]
"""Values by time (s)."""
Data = Mapping[Labels, tuple[int, Samples]]
"""Frequency and samples of each series."""
Result = dict[Labels, dict[int, float]]
"""Values by time (ms)."""

TYPES = ("accelerator", "core", "die", "hwthread", "memoryDomain", "node", "socket")


def labels_of(**labels: str) -> Labels:
    """Return labels as a key; empty ones are absent."""
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def split(name: str) -> tuple[str, str]:
    """Split the name of a component into type and id."""
    for known in TYPES:
        if name.startswith(known):
            return known, name[len(known) :]
    digits = next((k for k, c in enumerate(name) if c in "0123456789/"), len(name))
    return name[:digits], name[digits:]


def data_of(store: Store) -> Data:
    """Return all samples of a store; their times are those of the middles of slots."""
    found: dict[Labels, tuple[int, Samples]] = {}

    def walk(place: int, path: tuple[str, ...]) -> None:
        for metric, series in store.series_at(place):
            f = store.metrics[store.metric_ids[metric]].frequency
            samples = {
                start + f // 2 + k * f: value
                for start, _, values in contents(store, series)
                for k, value in enumerate(values)
                if value is not None
            }
            type_, type_id = split(path[2] if len(path) > 2 else "")
            stype, stype_id = split(path[3] if len(path) > 3 else "")
            key = labels_of(
                __name__=metric, cluster=path[0], hostname=path[1],
                type=type_, type_id=type_id, stype=stype, stype_id=stype_id,
            )  # fmt: skip
            found[key] = f, samples
        for name, child in store.index.children(place).items():
            walk(child, (*path, name))

    walk(store.index.root, ())
    return found


def evaluate(data: Data, expression: Expression, times: Sequence[int]) -> Result:
    """Evaluate a vector at some times (ms); series without any value are left out."""
    match expression:
        case Vector():
            result = {
                labels: _latest(samples, 2000 * f, times)
                for labels, (f, samples) in data.items()
                if _matches(labels, expression.matchers)
            }
        case Rate():
            result = {
                _unnamed(labels): _rates(samples, expression.window_ms, times)
                for labels, (_, samples) in data.items()
                if _matches(labels, expression.vector.matchers)
            }
        case Negation():
            result = _each(evaluate(data, expression.operand, times), lambda value: -value)
        case Operation(operator, Number(number), right):
            result = _each(evaluate(data, right, times), lambda value: operate(operator, number, value))
        case Operation(operator, left, Number(number)):
            result = _each(evaluate(data, left, times), lambda value: operate(operator, value, number))
        case Aggregate():
            result = _aggregate(expression, evaluate(data, expression.operand, times))
        case _:
            raise AssertionError(expression)
    return {labels: values for labels, values in result.items() if values}


def operate(operator: str, a: float, b: float) -> float:
    """Return what Go makes of two numbers."""
    try:
        match operator:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case "%":
                return math.fmod(a, b) if not math.isinf(a) and b else math.nan
            case "/" if b == 0:
                return (
                    math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
                )
            case "/":
                return a / b
            case _:
                return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:  # of math.pow: a negative base, or 0 to a negative power
        if a == 0:
            return -math.inf if math.copysign(1, a) < 0 and b % 2 == 1 else math.inf
        return math.nan


def _matches(labels: Labels, matchers: Iterable[Matcher]) -> bool:
    return all(matcher.accepts(dict(labels).get(matcher.label, "")) for matcher in matchers)


def _unnamed(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


def _each(vector: Result, function: Callable[[float], float]) -> Result:
    return {
        _unnamed(labels): {time: function(value) for time, value in values.items()}
        for labels, values in vector.items()
    }


def _window(samples: Samples, window: int, time: int) -> list[tuple[int, float]]:
    return sorted((t, value) for t, value in samples.items() if time - window < 1000 * t <= time)


def _latest(samples: Samples, lookback: int, times: Sequence[int]) -> dict[int, float]:
    return {time: found[-1][1] for time in times if (found := _window(samples, lookback, time))}


def _rates(samples: Samples, window: int, times: Sequence[int]) -> dict[int, float]:
    rates = {time: rate(_window(samples, window, time), time - window, time) for time in times}
    return {time: value for time, value in rates.items() if value is not None}


def rate(found: Sequence[tuple[int, float]], begin: int, end: int) -> float | None:
    """Extrapolate the increase of a counter to a whole window (ms), as Prometheus documents it."""
    if len(found) < 2:
        return None
    increase = found[-1][1] - found[0][1]
    for (_, before), (_, value) in pairwise(found):
        if value < before:
            increase += before
    to_start = (1000 * found[0][0] - begin) / 1000
    to_end = (end - 1000 * found[-1][0]) / 1000
    between = float(found[-1][0] - found[0][0])
    average = between / (len(found) - 1)
    if to_start >= 1.1 * average:
        to_start = average / 2
    if increase > 0 and found[0][1] >= 0:
        to_start = min(to_start, between * (found[0][1] / increase))
    if to_end >= 1.1 * average:
        to_end = average / 2
    return increase * ((between + to_start + to_end) / between) / ((end - begin) / 1000)


def _aggregate(expression: Aggregate, vector: Result) -> Result:
    groups: dict[Labels, dict[int, list[float]]] = {}
    for labels, values in vector.items():
        if expression.without:
            key = tuple(pair for pair in _unnamed(labels) if pair[0] not in expression.labels)
        else:
            key = tuple(pair for pair in labels if pair[0] in expression.labels)
        for time, value in values.items():
            groups.setdefault(key, {}).setdefault(time, []).append(value)
    return {
        key: {time: _combine(expression.function, values) for time, values in of_key.items()}
        for key, of_key in groups.items()
    }


def _combine(function: str, values: list[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    match function:
        case "sum":
            return sum(values)
        case "avg":
            return sum(values) / len(values)
        case "count":
            return float(len(values))
        case "min":
            return min(numbers, default=math.nan)
        case _:
            return max(numbers, default=math.nan)
