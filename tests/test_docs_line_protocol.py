"""The page about line protocol tells the truth: its tables are run through the scanner."""

import re
from pathlib import Path

import pytest
from wire_oracle import Bench, Row, bare, bits_of, expect

from ccstore.config import Config
from ccstore.model import Aggregation, Metric, Outcome
from ccstore.server.ledger import OUTCOMES
from ccstore.wire.layout import MAX_KEY_BYTES
from ccstore.wire.lineprotocol import MAX_TAGS

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "line-protocol.md").read_text(encoding="utf-8")
METRICS = [Metric("cpu_load", 60, Aggregation.SUM)]


def table(heading: str, *columns: str) -> list[list[str]]:
    """Return the cells of the rows of a table with these columns below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, heading
    head = "| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|\n"
    rows = section.partition(head)[2].partition("\n\n")[0].strip().split("\n")
    assert rows[0], columns
    return [row.removeprefix("| ").removesuffix(" |").split(" | ") for row in rows]


def code(cell: str) -> list[str]:
    """Return the pieces of code in a cell."""
    return re.findall("`([^`]+)`", cell)


def scan(line: str, *, now: int = 1_700_000_123) -> Row:
    """Return what becomes of a line: by the full grammar, with a new key, with a known one."""
    message = line.encode() + b"\n"
    (row,) = bare(expect(message, metrics=METRICS, default_cluster="def", now=now))
    bench = Bench(METRICS)
    assert [row] == bench.scan(message, default_cluster="def", now=now)
    assert [row] == bench.scan(message, default_cluster="def", now=now)
    return row


def rows(heading: str, *columns: str) -> list[tuple[str, str]]:
    """Return the rows of a table of two columns, the first without its quotes."""
    return [(cell.removeprefix("`").removesuffix("`"), other) for cell, other in table(heading, *columns)]


@pytest.mark.parametrize(
    ("line", "outcome"), rows("A line", "Line", "Outcome") + rows("Measurement", "Line", "Outcome")
)
def test_lines(line: str, outcome: str) -> None:
    """Each line has the outcome that stands beside it."""
    row = scan(line)
    assert code(outcome) == ["stored" if row.outcome is None else row.outcome.name.lower()]


@pytest.mark.parametrize(("tags", "place"), rows("Tags", "Tags", "Place"))
def test_places(tags: str, place: str) -> None:
    """Tags lead to the place that stands beside them, or to an outcome."""
    row = scan(f"cpu_load,{tags} value=1 5")
    assert code(place) == (list(row.path) if row.outcome is None else [row.outcome.name.lower()])


@pytest.mark.parametrize(("value", "kept"), rows("Value", "Value", "Kept"))
def test_values(value: str, kept: str) -> None:
    """Values are kept as the number that stands beside them."""
    row = scan(f"cpu_load,hostname=a0001 value={value} 5")
    if code(kept):
        assert row.outcome is not None
        assert code(kept) == [row.outcome.name.lower()]
    else:
        assert (row.outcome, row.value) == (None, bits_of(float(kept)))


@pytest.mark.parametrize(("time", "second"), rows("Time", "Time", "Second"))
def test_times(time: str, second: str) -> None:
    """Times mean the second that stands beside them."""
    row = scan(f"cpu_load,hostname=a0001 value=1 {time}")
    if code(second):
        assert row.outcome is not None
        assert code(second) == [row.outcome.name.lower()]
    else:
        assert (row.outcome, row.time) == (None, int(second))


@pytest.mark.parametrize(("most", "unit"), table("Time", "At most, either way", "Unit"))
def test_units(most: str, unit: str) -> None:
    """The largest time of each unit is taken in that unit, and the next one is not."""
    units = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
    for sign in ("", "-"):
        assert scan(f"cpu_load,hostname=a value=1 {sign}{most}").time == int(sign + most) // units[unit]
        row = scan(f"cpu_load,hostname=a value=1 {sign}{int(most) + 1}")
        assert row.outcome is Outcome.BAD_LINE or row.time != int(f"{sign}{int(most) + 1}") // units[unit]


def test_outcomes() -> None:
    """All outcomes are explained, in their order."""
    named = [code(outcome) for outcome, _, _ in table("Outcomes", "Outcome", "Means", "Status of a request")]
    assert [[outcome.name.lower()] for outcome in OUTCOMES] == named


def test_limits() -> None:
    """The limits are keys of the configuration; the length of a key is what the cache takes."""
    limits = Config().metric_store.limits
    names = {name.removesuffix("_bytes").replace("_", "-") for name in type(limits).__annotations__}
    found = {limit: code(limit) for _, limit, _ in table("Limits", "What", "Limit", "Beyond it")}
    keys = {key[0].removeprefix("metric-store.limits.") for key in found.values() if key}
    assert names == keys
    assert {str(MAX_KEY_BYTES), str(MAX_TAGS)} <= set(found)


def test_what_a_metric_without_aggregation_does() -> None:
    """A subtype of the host shares the host's series if the metric has no aggregation, and is counted."""
    bench = Bench([Metric("cpu_load", 60)])
    line = b"cpu_load,cluster=alex,host=a0001,type=node,stype=network,stype-id=eth0 value=1 5\n"
    (row,) = bench.scan(line)
    assert (row.path, bench.scanner.collapsed) == (("alex", "a0001"), 1)
