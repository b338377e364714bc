"""PromQL on the store, against an evaluation in plain Python."""

import math
from collections.abc import Iterable

import numpy as np
import promql_oracle as oracle
import pytest
from effort import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_tools import SUM, make_store, steps, write

from ccstore.errors import QueryError
from ccstore.memory import matching, promql
from ccstore.memory.components import split_component
from ccstore.memory.promql import Steps, evaluate, number_of
from ccstore.memory.store import Store
from ccstore.model import Metric
from ccstore.model.promql import Aggregate, Expression, Negation, Number, Operation
from ccstore.wire.promql import parse_query

METRICS = (Metric("m", 60, SUM), Metric("n", 7), Metric("k.x", 1))
PATHS = (
    ("c", "h1"),
    ("c", "h1", "socket0"),
    ("c", "h1", "socket0", "mem1"),
    ("c", "h2"),
    ("c", "h2", "hwthread10"),
    ("d", "h1", "acceleratorGPU-1a"),
)


def run(store: Store, expression: Expression | str, at: Steps) -> oracle.Result:
    """Evaluate a vector, and return its values as the oracle does."""
    expression = parse_query(expression) if isinstance(expression, str) else expression
    result: oracle.Result = {}
    for block in evaluate(store, expression, at):
        if block is None:
            continue
        for of, values, present in zip(block.of.tolist(), block.values, block.present, strict=True):
            labels = block.labels[of]
            assert list(labels) == sorted(labels)
            key = tuple(labels.items())
            assert key not in result
            found = zip(times_of(at), values.tolist(), present.tolist(), strict=True)
            result[key] = {time: value for time, value, there in found if there}
    return {labels: values for labels, values in result.items() if values}


def times_of(at: Steps) -> list[int]:
    return [at.start_ms + k * at.step_ms for k in range(at.count)]


def same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-12) or (math.isnan(a) and math.isnan(b))


def check(store: Store, expression: Expression, at: Steps) -> oracle.Result:
    """Compare an evaluation with the oracle's."""
    expected = oracle.evaluate(oracle.data_of(store), expression, times_of(at))
    found = run(store, expression, at)
    assert found.keys() == expected.keys()
    for labels, values in expected.items():
        assert found[labels].keys() == values.keys()
        for time, value in values.items():
            assert same(found[labels][time], value), (labels, time)
    return found


# --- generated stores and expressions


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """Draw a store with a few series: gaps, late samples, new chunks, counters that begin again."""
    store = make_store(*METRICS)
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=3, max_size=6, unique=True)):
        for metric in draw(st.lists(st.sampled_from(METRICS), min_size=1, max_size=2, unique=True)):
            time, f = draw(st.integers(900, 1100)), metric.frequency
            for _ in range(draw(st.integers(4, 14))):
                value = draw(st.one_of(st.integers(-3, 9), st.just(1 << 20)))
                write(store, path, [(time, float(value))], metric.name)
                time += draw(st.sampled_from([f, f, f, f - 1, 2 * f + 1, 3 * f, 40 * f, 513 * f, -f]))
    return store


SELECTORS = [
    "m", "m", "n", '{"k.x"}', 'm{type="socket"}', '{__name__=~"m|n"}', '{cluster="c",__name__!="n"}',
    'm{hostname!~"h1.*"}', 'm{type=""}', 'n{type_id=~"[0-9]+"}', '{stype="mem"}', 'm{nothing="x"}',
    'm{nothing!="x"}', '{hostname=~".+"}',
]  # fmt: skip
LABELS = ["__name__", "cluster", "hostname", "type", "type_id", "nothing"]
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 2.0, -3.0, 0.5, 1e300, math.inf, -math.inf, math.nan])


@st.composite
def expressions(draw: st.DrawFn) -> Expression:
    """Draw a vector; whether the names of metrics have to tell series apart is left to chance."""
    text = draw(st.sampled_from(SELECTORS))
    if draw(st.booleans()):
        text = f"rate({text}[{draw(st.sampled_from(['10s', '1m', '150s', '5m', '1h', '90500ms']))}])"
    expression = parse_query(text)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["left", "right", "negation", "aggregate", "aggregate"]))
        operator, number = draw(st.sampled_from("+-*/%^")), Number(draw(NUMBERS))
        if kind == "left":
            expression = Operation(operator, number, expression)
        elif kind == "right":
            expression = Operation(operator, expression, number)
        elif kind == "negation":
            expression = Negation(expression)
        else:
            labels = tuple(draw(st.lists(st.sampled_from(LABELS), max_size=3, unique=True)))
            function = draw(st.sampled_from(["sum", "avg", "min", "max", "count"]))
            expression = Aggregate(function, expression, labels, draw(st.booleans()))
    return expression


TIMES = st.builds(
    Steps,
    st.one_of(st.integers(950_000, 1_300_000), st.integers(950, 1300).map(lambda s: 1000 * s)),
    st.sampled_from([999, 1000, 7000, 7000, 60_000, 60_000, 61_500, 10_000_000]),
    st.integers(10, 60),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(stores(), expressions(), TIMES)
def test_against_the_oracle(store: Store, expression: Expression, at: Steps) -> None:
    """Every value of every expression, and no other; or the error that names do not tell series apart."""
    try:
        check(store, expression, at)
    except QueryError as error:
        assert str(error) == "vector cannot contain metrics with the same labelset"  # noqa: PT017
        names = {dict(labels)["__name__"] for labels in oracle.data_of(store)}
        assert len(names) > 1


@pytest.mark.parametrize("operator", [*"+-*/%^"])
def test_numbers(operator: str) -> None:
    """Operators work on numbers as they do in Go, infinities and NaN included."""
    numbers = [0.0, -0.0, 1.0, -1.0, 2.5, -3.0, 1e300, -1e300, math.inf, -math.inf, math.nan]
    for a in numbers:
        for b in numbers:
            expected = oracle.operate(operator, a, b)
            found = number_of(Operation(operator, Number(a), Number(b)))
            assert same(found, expected), (a, operator, b)
            assert math.isnan(found) or math.copysign(1, found) == math.copysign(1, expected)
            if not math.isnan(a):
                assert same(number_of(Negation(Number(a))), -a)


# --- known values


@pytest.fixture
def counter() -> Store:
    """A counter of 60 s that rises by 60 a sample and begins again once."""
    store = make_store(*METRICS)
    write(store, ("c", "h"), steps(1000, [0, 60, 120, 180, 30, 90, 150]))
    return store


def test_lookback(counter: Store) -> None:
    """A sample counts from its time on for two frequencies, the end of them excluded."""
    (values,) = run(counter, "m", Steps(1_360_000 - 1, 1, 2)).values()
    assert list(values.values()) == [90.0, 150.0]
    (values,) = run(counter, "m", Steps(1_360_000 + 119_998, 1, 4)).values()
    assert values == {1_479_998: 150.0, 1_479_999: 150.0}


def test_rate(counter: Store) -> None:
    """As Prometheus extrapolates it: to the window's ends when samples are near, and not below zero."""
    at = Steps(1_180_000, 60_000, 2)
    (values,) = run(counter, "rate(m[150s])", at).values()
    # 1060, 1120, 1180: 120 in 120 s, 30 s to the left, and 60 is more than they take
    assert values[1_180_000] == 120 * (150 / 120) / 150
    # 1120, 1180, 1240 with a reset: 30 - 120 + 180 = 90 in 120 s
    assert values[1_240_000] == 90 * (150 / 120) / 150
    (values,) = run(counter, "rate(m[1h])", Steps(1_120_000, 1, 1)).values()
    # from 0, so nothing is added in front
    assert values[1_120_000] == 120 / 3600


def test_precision_of_resets() -> None:
    """A huge value in the past does not blur what comes after it."""
    store = make_store(*METRICS)
    values = [1e30, 1.0, 2.0, 3.0, 1.0, 2.0, 1e30, 5.0, 6.0, 2.0, 3.0]
    write(store, ("c", "h"), steps(1000, values))
    check(store, parse_query("rate(m[3m])"), Steps(1_000_000, 60_000, 11))


def test_a_long_series() -> None:
    """Over many chunks, with holes of whole rows and new chunks at other phases."""
    store = make_store(*METRICS)
    generator = np.random.default_rng(1)
    time = 1000
    for _ in range(700):
        time += int(generator.choice([60, 60, 60, 61, 120, 60 * 50]))
        write(store, ("c", "h"), [(time, float(generator.integers(0, 50)))])
    assert len(store.chunks(int(store.select(("c", "h"), 0)[0]))) > 5
    for text in ("m", "rate(m[5m])", "rate(m[7h])", "rate(m[1000d])"):
        check(store, parse_query(text), Steps(900_500, 1_800_000, 300))


# --- order, limits, others in between


def test_order() -> None:
    """By cluster, host, metric and component; numbers in names count as such."""
    store = make_store(*METRICS)
    for number in (10, 2, 0):
        for host in ("b", "a"):
            write(store, ("c", host, f"socket{number}"), [(1000, 1.0)])
    found = [dict(labels) for labels in run(store, "m", Steps(1_000_000, 1, 1))]
    assert [(labels["hostname"], labels["type_id"]) for labels in found] == [
        (host, number) for host in "ab" for number in ("0", "2", "10")
    ]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("socket0", ("socket", "0")),
        ("hwthread127", ("hwthread", "127")),
        ("accelerator00000000:49:00.0", ("accelerator", "00000000:49:00.0")),
        ("acceleratorGPU-1a2b", ("accelerator", "GPU-1a2b")),
        ("memoryDomain3", ("memoryDomain", "3")),
        ("networketh0", ("networketh", "0")),
        ("filesystem/home", ("filesystem", "/home")),
        ("mem1", ("mem", "1")),
        ("7", ("", "7")),
        ("socket", ("socket", "")),
        ("", ("", "")),
    ],
    ids=repr,
)
def test_names_of_components(name: str, parts: tuple[str, str]) -> None:
    """A known type ends where its name does, another one before the first digit or slash."""
    assert split_component(name) == parts == oracle.split(name)


def test_deeper_places_are_left_out() -> None:
    """No line leads below a part of a component; files of others might."""
    store = make_store(*METRICS)
    for depth in (2, 3, 4, 5, 6):
        write(store, ("c", "h", "socket0", "mem0", "x", "y")[:depth], [(1000, 1.0)])
    assert len(run(store, "m", Steps(1_000_000, 1, 1))) == 3


def hosts(count: int, components: int = 1) -> Store:
    store = make_store(*METRICS, max_series=100_000, max_bytes=1 << 24)
    for host in range(count):
        for number in range(components):
            write(store, ("c", f"h{host:04}", f"socket{number}"), [(1000, 1.0)])
    return store


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series, values read and values kept are bounded; the error comes before any block."""
    store, at = hosts(20, 3), Steps(1_000_000, 1000, 10)
    cases = [("m", 59, "more than 59 series"), ("sum(m)", 59, "more than 59 series")]
    monkeypatch.setattr(promql, "MAX_POINTS", 599)
    cases.append(("m", 0, "more than 599 values (wanted"))
    for text, limit, message in cases:
        with pytest.raises(QueryError, match=message.replace("(", r"\(")):
            first_block(evaluate(store, parse_query(text), at, max_series=limit))
    monkeypatch.setattr(promql, "MAX_POINTS", 600)
    first_block(evaluate(store, parse_query("m"), at, max_series=60))
    monkeypatch.setattr(promql, "MAX_KEPT", 190)
    first_block(evaluate(store, parse_query("sum by (cluster) (m)"), at))
    with pytest.raises(QueryError, match="more than 190 values of groups"):
        first_block(evaluate(store, parse_query("sum by (hostname) (m)"), at))


def first_block(blocks: promql.Blocks) -> promql.Block:
    return next(block for block in blocks if block is not None)


def test_steps_are_short() -> None:
    """No block has more than some ten thousand values, and the first search is of one host."""
    store = hosts(300, 5)
    for text in ("m", "rate(m[5m])", "sum by (hostname) (m)"):
        blocks = list(evaluate(store, parse_query(text), Steps(1_000_000, 1000, 100)))
        sizes = [block.values.size for block in blocks if block is not None]
        assert max(sizes) <= promql._BLOCK
        assert len(blocks) > 10
    assert sum(sizes) == 300 * 100


def test_a_search_is_divided() -> None:
    """Others get their turn also while hosts are looked through of which none fulfils a condition."""
    store = hosts(1000)
    blocks = list(evaluate(store, parse_query('m{hostname=~"x.*"}'), Steps(1_000_000, 1000, 1)))
    assert set(blocks) == {None}
    assert len(blocks) > 1000 // matching._HOSTS


def test_others_change_the_store_between_two_blocks() -> None:
    """Series that come and go meanwhile are met or not; none is told twice or as another one."""
    store = hosts(3, 40)
    at = Steps(1_000_000, 10, 2000)
    told: dict[tuple[tuple[str, str], ...], Iterable[float]] = {}
    for number, block in enumerate(evaluate(store, parse_query("m"), at)):
        if block is None:
            continue
        for of, values in zip(block.of.tolist(), block.values, strict=True):
            labels = tuple(block.labels[of].items())
            assert labels not in told
            told[labels] = set(values[~np.isnan(values)].tolist())
        host = f"h{number % 3:04}"
        write(store, ("c", host, f"socket{number % 7}1"), [(1000, 1.0)])
        place = store.locate(("c", host, f"socket{39 - number % 30}"), create=False)
        if place >= 0:
            store.free(place, 10**6)
            store.prune(store.index.root, store.dormant())
        write(store, ("d", f"new{number}"), [(1000, 2.0)])
    assert len(told) > 60
    assert all(values <= {1.0} for values in told.values())
