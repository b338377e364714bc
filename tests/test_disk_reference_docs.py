"""docs/reference/formats-reference.md is held to the code."""

import math
import re

import numpy as np
import pytest
from disk_reference import EXAMPLE, FILE_MAGIC, GOLDEN, record, runs_of
from disk_reference import name_all as name
from test_disk_reference_directory import THREE, chosen

from ccstore.disk.reference import kernels, snapshot, wal
from ccstore.disk.reference.checkpoint import MAX_DEPTH, MAX_FREQUENCY, MAX_NAME_BYTES
from ccstore.disk.reference.columns import CHUNK_SLOTS, arrange
from ccstore.disk.reference.directory import CURRENT_LOG, plan_cleanup, plan_load
from ccstore.disk.reference.jsonfile import encode_json

PAGE = (GOLDEN.parents[2] / "docs" / "reference" / "formats-reference.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return what stands below a heading."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def dumps(title: str) -> list[bytes]:
    """Return the bytes that are shown in a section."""
    blocks = re.findall(r"(?:^    (?:[0-9a-f]{2} ?)+\n)+", section(title), re.MULTILINE)
    return [bytes.fromhex(block) for block in blocks]


def rows(title: str) -> list[list[str]]:
    """Return the cells of the table of a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_records() -> None:
    """The records that are shown are those that are written."""
    expected = [record((("socket0",), "cpu_load", 1_700_000_000, 1.5)), record(((), "m", -1, math.nan))]
    assert expected == dumps("Log: `current.wal`")


def test_snapshot() -> None:
    """The file that is shown is the one that is written."""
    assert [snapshot.encode_snapshot(EXAMPLE)] == dumps("Binary checkpoint: `<from>.bin`")


def test_text() -> None:
    """The line that is shown is the one that is written."""
    line = re.findall(r"^    (\{.*)$", PAGE, re.MULTILINE)
    assert [encode_json(EXAMPLE).decode().rstrip("\n")] == line


@pytest.mark.parametrize(
    "magic", [FILE_MAGIC, kernels.MAGIC.to_bytes(4, "little"), snapshot.MAGIC, snapshot.TRAILER_MAGIC]
)
def test_magic_numbers(magic: bytes) -> None:
    """Each is shown."""
    assert f"4 bytes   {magic.hex(' ')}\n" in PAGE
    assert wal.FILE_MAGIC == FILE_MAGIC


def test_values() -> None:
    """The table of values has what ccstore writes, and the reference's text is the value to one decimal."""
    table, names = rows("Text checkpoint: `<from>.json`"), name([(("c", "h"), "m", 60)])
    assert len(table) == 8
    for value, reference, ours in table:
        number = float(np.float32(value))
        (file,) = arrange(names, runs_of([(0, 970, 0, [number])]), start=1, stop=2)
        assert f'"data":[{ours}]' in encode_json(file).decode()
        assert reference == ("null" if math.isnan(number) else f"{number:.1f}")


@pytest.mark.parametrize(
    ("title", "plan"), [("Which files are loaded", plan_load), ("Which files are cleaned up", plan_cleanup)]
)
def test_choices(title: str, plan) -> None:
    """Each row is what is chosen."""
    table = rows(title)
    assert len(table) >= 7
    for time, numbers in table:
        wanted = [] if numbers == "none" else [int(number) for number in numbers.split()]
        assert wanted == chosen(plan, THREE, int(time))


def test_further_files() -> None:
    """The two examples of grids are what is written."""
    names = name([(("c", "h"), "m", 60)])
    full = list(range(512))
    (one,) = arrange(names, runs_of([(0, 60000, 0, full), (0, 90727, 0, [-2])]), start=1, stop=2)
    entry = one.host.entries["m"]
    assert f"start {entry.start}, {len(entry.values)} values" in PAGE
    assert entry.stop - 60 == 90750
    first, second = arrange(names, runs_of([(0, 970, 0, full), (0, 31660, 0, [1])]), start=1, stop=2)
    starts = [file.host.entries["m"].start for file in (first, second)]
    assert f"two files:  start {starts[0]}, 512 values; <{second.start}>: start {starts[1]}\n" in PAGE


@pytest.mark.parametrize(
    "text",
    [
        f"| payload of a log record | {kernels.SMALLEST} to {kernels.LARGEST} bytes |",
        f"| name of a place | {MAX_NAME_BYTES} bytes |",
        f"| frequency | 1 to {MAX_FREQUENCY} s |",
        f"| levels below the host | {MAX_DEPTH} |",
        f"if more than {CHUNK_SLOTS} missing values",
        f" {CURRENT_LOG} ",
    ],
)
def test_the_figures_are_those_of_the_code(text: str) -> None:
    """A limit that changes in the code changes on the page."""
    assert text in PAGE
