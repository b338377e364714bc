"""The command ``bench``: it measures, says what it has to say, and its exit code tells what is reached."""

import json
import subprocess
import sys

import pytest

from ccstore.cli.bench.report import Row, as_table


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        ("ingest", {"scan, keys known, usual order", "append, usual order", "first interval, every key new"}),
        ("queries", {"sum of 72 series on each of 3 hosts, 6 values each"}),
        ("http", {"HTTP body to memory, whole server"}),
        ("nats", {"NATS to memory, with broker and publisher"}),
        (
            "nodes",
            {"job events over NATS, for 1 s, to commit", "report of 3 nodes, 30 metrics each, to commit"},
        ),
        ("streams", {"line received to frame sent to the last client, p99, the same load"}),
    ],
)
def test_each_part_measures(part: str, rows: set[str]) -> None:
    """Each part runs to its end with a small site and has positive figures."""
    arguments = [sys.executable, "-m", "ccstore", "bench", "--only", part, "--hosts", "3"]
    arguments += ["--seconds", "1", "--json"]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert result.returncode in (0, 1), result.stderr
    found = json.loads(result.stdout)
    assert found["hosts"] == 3
    assert {row["what"] for row in found["rows"]} >= rows
    assert all(row["value"] > 0 for row in found["rows"])
    assert result.returncode == (0 if all(row["reached"] for row in found["rows"]) else 1)


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("rate", 8.0, "M lines/s", 8, 20), True),
        (Row("rate", 7.9, "M lines/s", 8, 20), False),
        (Row("time", 50.0, "ms", 50, 5), True),
        (Row("time", 50.1, "ms", 50, 5), False),
        (Row("free", 1.0, "ms"), True),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else f"{value.what} {value.value}",
)
def test_what_is_reached(row: Row, reached: bool) -> None:
    """A rate has to be as large as its bound, a time and a size as small."""
    assert row.to_json()["reached"] is reached


def test_the_table_has_a_row_for_each_figure() -> None:
    """The table has the rows in their order."""
    table = as_table([Row("one", 1.0, "ms", 2, 3, "note"), Row("two", 2.0, "B")])
    assert table.row_count == 2
    assert list(table.columns[0].cells) == ["one", "two"]
