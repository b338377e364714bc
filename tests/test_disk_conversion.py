"""A directory in another format: every value that counts is there afterwards, in the slot it had."""

import itertools
import math
import random
import shutil
import tempfile
from pathlib import Path

import durable
import numpy as np
import pytest
from disk_columnar import make_runs, make_samples
from disk_directories import (
    FREQUENCIES,
    START,
    Key,
    read_all,
    series_in,
    write_checkpoint,
    write_log,
    write_reference,
    write_segment,
)
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from ccstore.disk import conversion, holdings, layout
from ccstore.disk.conversion import FORMATS, Conversion, ConversionError, convert_directory
from ccstore.disk.files import OsDisk
from ccstore.disk.folding import cut_by_period, fold, join_runs
from ccstore.disk.reference.directory import list_hosts
from ccstore.errors import ConfigError
from ccstore.memory.store import Store
from ccstore.model import Metric, Runs
from ccstore.server.recovery import Recovery, recover

NO_SHRINK = [Phase.explicit, Phase.generate]  # an example writes a dozen files
HOSTS = (("alex", "a1"), ("alex", "a2"), ("fritz", "a1"))
PLACES = (*HOSTS, (*HOSTS[0], "socket0"), (*HOSTS[2], "socket1", "mem0"))


def convert(source: Path, target: Path, to: str, frequencies: dict[str, int] | None = None) -> Conversion:
    known = FREQUENCIES if frequencies is None else frequencies
    return convert_directory(source, target, to=to, frequencies=lambda _: known, now=START)


def at(path: tuple[str, ...], metric: str, slot: int) -> Key:
    return path, metric, START + slot * FREQUENCIES[metric]


# --- any values in any files


slots = st.integers(-2, 40) | st.integers(0, 5000)
keys = st.builds(at, st.sampled_from(PLACES), st.sampled_from(sorted(FREQUENCIES)), slots)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
contents = st.dictionaries(keys, floats, min_size=1, max_size=30)
samples = st.lists(st.tuples(keys, floats), min_size=1, max_size=30)


@settings(max_examples=12, deadline=None, phases=NO_SHRINK)
@given(older=contents, newer=contents, covered=samples, log=st.lists(samples, min_size=1, max_size=3))
def test_columnar_to_each_format_and_on(older, newer, covered, log) -> None:
    """Checkpoints, and the log that none of them covers; from format to format nothing changes any more."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        write_segment(source, 1, [covered], shard=1)
        write_checkpoint(source, 2, [older, newer])
        write_checkpoint(source, 3, [newer], shard=1)
        write_segment(source, 3, log)
        layout.write_covered(OsDisk(), source, 2)
        expected = older | newer | dict(itertools.chain(*log))
        last = source
        for number, to in enumerate(("wal", "json", "columnar", "json", "wal")):
            result = convert(last, last := Path(name) / f"{number}", to)
            assert read_all(last) == expected
            assert (result.problems, result.values) == ([], len(expected))
            assert (result.hosts, result.series) == (
                len({k[0][:2] for k in expected}),
                len(series_in(expected)),
            )


@settings(max_examples=12, deadline=None, phases=NO_SHRINK)
@given(older=contents, newer=contents, old_log=samples, log=samples, to=st.sampled_from(FORMATS))
def test_reference_to_each_format(older, newer, old_log, log, to) -> None:
    """Checkpoints of both kinds in the order of their numbers, then logs in that of theirs."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        write_reference(source, 900, older, ".json")
        write_reference(source, 1000, newer, ".bin", stop=2000)
        write_log(source, old_log, "9.wal")
        write_log(source, log)
        expected = older | newer | dict(old_log) | dict(log)
        result = convert(source, Path(name) / "target", to)
        assert read_all(Path(name) / "target") == expected
        assert result.problems == []
        assert len(expected) <= result.values <= result.values_read
        assert to == "columnar" or result.values == len(expected)


@pytest.mark.parametrize("to", FORMATS)
def test_both_formats_in_one_directory(tmp_path: Path, to: str) -> None:
    """What ccstore wrote by itself counts more than what it took over."""
    key, other = at(HOSTS[0], "load", 3), at(HOSTS[1], "load", 3)
    write_reference(tmp_path / "source", 900, {key: 1.0, other: 1.0})
    write_checkpoint(tmp_path / "source", 5, [{key: 2.0}])
    result = convert(tmp_path / "source", tmp_path / "target", to)
    assert read_all(tmp_path / "target") == {key: 2.0, other: 1.0}
    assert (result.values_read, result.values) == (3, 3 if to == "columnar" else 2)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("superseded", [False, True], ids=["columnar-newer", "reference-newer"])
async def test_both_formats_as_a_server_reads_them(tmp_path: Path, to: str, superseded: bool) -> None:
    """Checkpoints and logs of one format, then those of the other: a note tells which of them are newer."""
    source, keys_ = tmp_path / "source", [at(HOSTS[0], "load", slot) for slot in range(4)]
    write_reference(source, 900, {keys_[0]: 1.0, keys_[1]: 1.0})
    write_log(source, [(keys_[2], 1.0), (keys_[3], 1.0)])
    write_checkpoint(source, 5, [{keys_[0]: 2.0, keys_[2]: 2.0}])
    write_segment(source, 6, [[(keys_[1], 2.0), (keys_[3], 2.0)]])
    if superseded:
        layout.set_superseded(OsDisk(), source, True)
    convert(source, tmp_path / "target", to)
    expected = dict.fromkeys(keys_, 1.0 if superseded else 2.0)
    assert read_all(tmp_path / "target") == expected == await start_server(source)


async def start_server(directory: Path) -> dict[Key, float]:
    """Return what a server has after it started on a directory."""
    metrics = [Metric(name, frequency) for name, frequency in FREQUENCIES.items()]
    store, report = Store(metrics, max_series=100, max_bytes=1 << 20), Recovery()
    await recover(store, OsDisk(), directory, report, since=0)
    assert (report.damage, report.refused, report.unknown) == ([], 0, 0)
    return durable.contents(store)


@pytest.mark.parametrize("seed", range(3))
async def test_a_server_has_the_same_on_either_directory(tmp_path: Path, seed: int) -> None:
    """To the second, also where times shift and pause, so that new chunks have other grids."""
    rng = random.Random(seed)
    rows: list[tuple[Key, float]] = []
    for metric, frequency in FREQUENCIES.items():
        time = START
        for _ in range(1500):
            time += frequency + rng.choice([0, 0, 0, 1, -1]) + rng.randrange(5000) * (rng.random() < 0.005)
            rows.append(((HOSTS[0], metric, time), float(len(rows))))
    write_segment(tmp_path / "source", 3, [rows])
    before = await start_server(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "columnar", "columnar")
    assert await start_server(tmp_path / "columnar") == before
    convert(tmp_path / "columnar", tmp_path / "wal", "wal")
    values = {value: key for key, value in read_all(tmp_path / "wal").items()}
    assert values.keys() == set(before.values())  # the reference has one grid where a server has several
    assert all(
        abs(values[value][2] - time) < FREQUENCIES[metric] for (_, metric, time), value in before.items()
    )


def test_many_groups_of_hosts_are_the_same_as_one(tmp_path: Path, monkeypatch) -> None:
    """Where columnar files do not fit into memory they are read once for each group, for the same result."""
    values = {at(path, "load", slot): float(slot) for path in PLACES for slot in range(50)}
    write_checkpoint(tmp_path / "source", 1, [values])
    convert(tmp_path / "source", tmp_path / "one", "wal")
    monkeypatch.setattr(holdings, "GROUP_VALUES", 1)
    convert(tmp_path / "source", tmp_path / "many", "wal")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.bin"))
    assert len(files) == len(HOSTS)
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "many" / path).read_bytes()


def test_many_blocks(tmp_path: Path, monkeypatch) -> None:
    """A host of more than a block goes into several, each with the names it needs."""
    monkeypatch.setattr(conversion, "_BLOCK_VALUES", 10)
    values = {at(path, "load", slot): float(slot) for path in PLACES for slot in range(25)}
    write_reference(tmp_path / "source", 900, values)
    convert(tmp_path / "source", tmp_path / "target", "columnar")
    assert read_all(tmp_path / "target") == values


# --- what the new directory looks like


def test_files_of_the_reference_are_cut_at_half_days(tmp_path: Path) -> None:
    """Their names begin when their values do and grow, and they end behind their last value."""
    values = {at(HOSTS[0], "load", slot): 1.0 for slot in range(0, 3000, 7)}
    write_checkpoint(tmp_path / "source", 1, [values])
    convert(tmp_path / "source", tmp_path / "target", "wal")
    (host,) = list_hosts(OsDisk(), tmp_path / "target").hosts
    numbers = [file.number for file in host.files]
    assert numbers[0] == START - 30
    assert numbers == sorted(set(numbers))
    assert len(numbers) == len({(time - 30) // (12 * 3600) for _, _, time in values})
    assert (host.logs, host.temporary, host.strange) == ((), (), ())


def test_a_columnar_directory_is_one_checkpoint(tmp_path: Path) -> None:
    """There is no log and nothing to be covered: it is as after a clean stop."""
    write_log(tmp_path / "source", [(at(HOSTS[0], "load", 0), 1.0)])
    convert(tmp_path / "source", tmp_path / "target", "columnar")
    (file,) = layout.find_files(OsDisk(), tmp_path / "target")
    assert not file.is_segment
    assert [path for path in (tmp_path / "target").rglob("*") if path.is_file()] == [file.path]


@pytest.mark.parametrize("to", FORMATS)
def test_an_empty_directory(tmp_path: Path, to: str) -> None:
    """Nothing becomes nothing."""
    (tmp_path / "source").mkdir()
    assert convert(tmp_path / "source", tmp_path / "target", to).values == 0
    assert read_all(tmp_path / "target") == {}


def test_infinities_are_no_json(tmp_path: Path) -> None:
    """They are reported, and everything else is there."""
    bad, good = at(HOSTS[0], "load", 0), at(HOSTS[0], "load", 1)
    write_checkpoint(tmp_path / "source", 1, [{bad: math.inf, good: 1.0}])
    result = convert(tmp_path / "source", tmp_path / "target", "json")
    assert result.problems == ["1 infinite values: JSON has none, so they are missing"]
    assert read_all(tmp_path / "target") == {good: 1.0}


def test_names_that_the_columnar_format_cannot_hold(tmp_path: Path) -> None:
    """The series is reported, and everything else is there."""
    good, bad = at(HOSTS[0], "load", 0), at((*HOSTS[0], "a\0b"), "load", 0)
    write_reference(tmp_path / "source", 900, {good: 1.0, bad: 2.0})
    result = convert(tmp_path / "source", tmp_path / "target", "columnar")
    assert result.problems == [r"'alex/a1/a\\x00b/load': no name for a series of the columnar format"]
    assert read_all(tmp_path / "target") == {good: 1.0}


def test_times_that_nobody_can_compute_with(tmp_path: Path) -> None:
    """They are reported and left out."""
    good = at(HOSTS[0], "load", 0)
    write_log(
        tmp_path / "source",
        [(good, 1.0), ((HOSTS[0], "load", 2**62), 1.0), ((HOSTS[0], "load", -(2**63)), 1.0)],
    )
    result = convert(tmp_path / "source", tmp_path / "target", "wal")
    assert result.problems == ["alex/a1: 2 values at impossible times are left out"]
    assert read_all(tmp_path / "target") == {good: 1.0}


# --- frequencies of logs


def test_the_configured_frequency_counts(tmp_path: Path) -> None:
    """Also where a checkpoint of the same host has another one."""
    key = at(HOSTS[0], "load", 0)
    write_reference(tmp_path / "source", 900, {key: 1.0})
    write_log(tmp_path / "source", [(at(HOSTS[0], "load", 7), 2.0), ((HOSTS[0], "load", START + 431), 3.0)])
    convert(tmp_path / "source", tmp_path / "target", "wal", {"load": 10})
    found = read_all(tmp_path / "target")
    assert found == {key: 1.0, at(HOSTS[0], "load", 7): 2.0, (HOSTS[0], "load", START + 430): 3.0}


def test_without_a_configuration_a_checkpoint_tells_the_frequency(tmp_path: Path) -> None:
    """The last one of the same host does."""
    write_reference(tmp_path / "source", 900, {at(HOSTS[0], "load", 0): 1.0})
    write_log(tmp_path / "source", [((HOSTS[0], "load", START + 80), 2.0)])
    convert(tmp_path / "source", tmp_path / "target", "wal", {})
    assert read_all(tmp_path / "target") == {at(HOSTS[0], "load", 0): 1.0, at(HOSTS[0], "load", 1): 2.0}


def test_all_unknown_frequencies_are_told_at_once(tmp_path: Path) -> None:
    """And nothing is left of the attempt."""
    write_log(tmp_path / "source", [((HOSTS[0], "b", START), 2.0), ((HOSTS[0], "a", START), 2.0)])
    with pytest.raises(ConfigError) as caught:
        convert(tmp_path / "source", tmp_path / "target", "wal")
    assert [line.partition(":")[0] for line in caught.value.problems] == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


# --- damage


def test_what_can_be_read_is_converted(tmp_path: Path) -> None:
    """A damaged checkpoint costs a block, and the whole log is read instead of what is not covered."""
    first, second, third = (at(path, "load", 0) for path in HOSTS)
    write_segment(tmp_path / "source", 1, [[(first, 1.0)]])
    path = write_checkpoint(tmp_path / "source", 2, [{first: 1.0, second: 2.0}, {third: 3.0}])
    layout.write_covered(OsDisk(), tmp_path / "source", 2)
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    result = convert(tmp_path / "source", tmp_path / "target", "wal")
    assert read_all(tmp_path / "target") == {first: 1.0, third: 3.0}
    (problem,) = result.problems
    assert problem.startswith(f"{path}: byte 36: payload checksum mismatch (")
    assert problem.endswith(" bytes, 2 samples lost)")


@pytest.mark.parametrize("to", FORMATS)
def test_damaged_files_of_the_reference(tmp_path: Path, to: str) -> None:
    """A checkpoint is lost as a whole, a log from the first bad record on."""
    keys_ = [at(HOSTS[0], "load", slot) for slot in range(3)]
    (bad,) = write_reference(tmp_path / "source", 900, {keys_[0]: 1.0})
    bad.write_bytes(bad.read_bytes()[:30])
    (log,) = write_log(tmp_path / "source", [(keys_[1], 1.0), (keys_[2], 1.0)])
    log.write_bytes(log.read_bytes()[:-1])
    result = convert(tmp_path / "source", tmp_path / "target", to)
    assert read_all(tmp_path / "target") == {keys_[1]: 1.0}
    (problem,) = result.problems
    assert problem.startswith(f"{bad}: byte 0: ")


def test_a_result_that_reads_differently_is_no_result(tmp_path: Path, monkeypatch) -> None:
    """What is written is read again, and a directory that differs never gets its name."""
    write_checkpoint(tmp_path / "source", 1, [{at(HOSTS[0], "load", 0): 1.0}])

    def encode(checkpoint, suffix):
        return encode_right(checkpoint, suffix).replace(b"1.0", b"2.0")

    encode_right = conversion.encode_checkpoint
    monkeypatch.setattr(conversion, "encode_checkpoint", encode)
    with pytest.raises(ConversionError, match=r"differs from what was written"):
        convert(tmp_path / "source", tmp_path / "target", "json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_damaged_columnar_result_is_no_result(tmp_path: Path, monkeypatch) -> None:
    """The same for the other kind of target."""
    write_checkpoint(tmp_path / "source", 1, [{at(HOSTS[0], "load", 0): 1.0}])
    finish = conversion.ColumnarTarget.finish

    def flip(self):
        finish(self)
        data = bytearray(self._path.read_bytes())
        data[-200] ^= 1
        self._path.write_bytes(data)

    monkeypatch.setattr(conversion.ColumnarTarget, "finish", flip)
    with pytest.raises(ConversionError, match=r"differs from what was written"):
        convert(tmp_path / "source", tmp_path / "target", "columnar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


# --- targets that are refused


def test_targets_that_are_refused(tmp_path: Path) -> None:
    """Not empty, a file, in the source, or with the leftover of another conversion beside it."""
    source = tmp_path / "source"
    write_checkpoint(source, 1, [{at(HOSTS[0], "load", 0): 1.0}])
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "left.partial").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for name, why in (
        ("full", "not empty"),
        ("file", "not empty"),
        ("source", "not empty"),
        ("source/new", "in the directory that is converted"),
        ("left", "left of a conversion"),
    ):
        with pytest.raises(ConfigError, match=why):
            convert(source, tmp_path / name, "wal")
    with pytest.raises(ConfigError, match="no such directory"):
        convert(tmp_path / "nothing", tmp_path / "new", "wal")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_target_is_taken(tmp_path: Path) -> None:
    """Somebody made it with the right owner and mode."""
    write_checkpoint(tmp_path / "source", 1, [{at(HOSTS[0], "load", 0): 1.0}])
    (tmp_path / "target").mkdir()
    convert(tmp_path / "source", tmp_path / "target", "json")
    assert len(read_all(tmp_path / "target")) == 1


def test_the_source_is_not_changed(tmp_path: Path) -> None:
    """Not a byte of it, whatever lies there."""
    source = tmp_path / "source"
    write_reference(source, 900, {at(HOSTS[0], "load", 0): 1.0})
    write_log(source, [(at(HOSTS[0], "load", 1), 1.0)])
    write_checkpoint(source, 1, [{at(HOSTS[0], "load", 2): 1.0}])
    (source / "strange").write_bytes(b"x")
    shutil.copytree(source, tmp_path / "before")
    convert(source, tmp_path / "target", "columnar")
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    assert files == sorted(
        p.relative_to(tmp_path / "before") for p in (tmp_path / "before").rglob("*") if p.is_file()
    )
    for path in files:
        assert (source / path).read_bytes() == (tmp_path / "before" / path).read_bytes()


# --- samples as runs


def slots_of(runs: Runs, frequencies) -> list[tuple[int, int, float]]:
    """Return number, beginning and value of each slot, in the order in which they count."""
    found, at_ = [], 0
    for number, start, first, count in zip(runs.numbers, runs.starts, runs.firsts, runs.counts, strict=True):
        for k in range(count):
            begin = int(start) + (int(first) + k) * int(frequencies[number])
            found.append((int(number), begin, float(runs.values[at_ + k])))
        at_ += count
    return found


rows = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(-5000, 50_000) | st.integers(-70, 70).map(lambda k: k * 512),
        st.floats(width=32, allow_nan=True),
    ),
    max_size=60,
)
grids = st.lists(st.tuples(st.integers(0, 2), st.integers(-5000, 50_000)), max_size=6)


@settings(deadline=None, max_examples=300)
@given(rows=rows, grids=grids)
@example(rows=[(2, 0, 1.0), (2, 513, 2.0), (2, 512, 3.0), (2, 1025, 4.0)], grids=[])
@example(rows=[(0, 0, 1.0), (0, 30_690, 2.0), (0, 30_670, 3.0), (0, 30_680, 4.0)], grids=[])
def test_samples_become_the_slots_of_a_server(rows, grids) -> None:
    """As if one sample after the other were put into the latest chunk before it, or began a new one."""
    frequencies = np.array([60, 7, 1])
    runs = make_runs([(number, start, 0, [0.5]) for number, start in grids])
    folded = fold(make_samples(rows), runs, frequencies)
    chunks: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for number, start in sorted(grids):
        chunks[number].append(start)
    expected: dict[tuple[int, int], float] = {}
    for number, time, value in rows:
        if math.isnan(value):
            continue
        f = int(frequencies[number])
        before = [start for start in chunks[number] if start <= time]
        if not chunks[number] or (before == chunks[number] and time - before[-1] >= 512 * f):
            chunks[number].append(time - f // 2)
            before = chunks[number]
        grid = before[-1] if before else chunks[number][0]
        expected[number, grid + (time - grid) // f * f] = value
    found = slots_of(folded, frequencies)
    assert {(number, begin): value for number, begin, value in found} == expected
    assert len(found) == len(expected)
    assert all(1 <= count <= 512 for count in folded.counts.tolist())


@settings(deadline=None)
@given(rows=rows, period=st.sampled_from([60, 3600, 10**6]))
def test_periods_hold_what_begins_in_them(rows, period) -> None:
    """Cut and joined, runs say the same in the same order for each period."""
    frequencies = np.array([60, 7, 1])
    runs = make_runs(
        [(number, start, 3, [value] * 5) for number, start, value in rows if not math.isnan(value)]
    )
    parts = list(cut_by_period(runs, frequencies, period))
    for part in parts:
        assert len({begin // period for _, begin, _ in slots_of(part, frequencies)}) == 1
    every = slots_of(runs, frequencies)
    expected = sorted(every, key=lambda row: row[1] // period)
    assert slots_of(join_runs(parts), frequencies) == expected


@pytest.mark.parametrize("to", FORMATS)
def test_progress_of_each_phase_reaches_its_end(tmp_path: Path, to: str) -> None:
    """First a look at columnar files, then the conversion in bytes, then what is read again."""
    write_checkpoint(tmp_path / "source", 1, [{at(HOSTS[0], "load", 0): 1.0}, {at(HOSTS[1], "load", 0): 1.0}])
    write_reference(tmp_path / "source", 900, {at(HOSTS[2], "load", 0): 1.0})
    phases: dict[str, list[tuple[int, int]]] = {}
    convert_directory(
        tmp_path / "source",
        tmp_path / "target",
        to=to,
        frequencies=lambda _: {},
        now=START,
        advance=lambda what, done, total: phases.setdefault(what, []).append((done, total)),
    )
    assert list(phases) == ["looking", "converting", "reading again"]
    for steps in phases.values():
        assert steps == sorted(steps, key=lambda step: step[0])
        assert steps[-1][0] == steps[-1][1] > 0


def test_a_conversion_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C at any moment that can be seen: the target is as it was, and so is the next attempt's way."""
    write_checkpoint(tmp_path / "source", 1, [{at(path, "load", 0): 1.0} for path in HOSTS])
    moments = 0

    def count(*_step: object) -> None:
        nonlocal moments
        moments += 1

    def cut(*_step: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    convert_directory(
        tmp_path / "source", tmp_path / "whole", to="json", frequencies=lambda _: {}, now=START, advance=count
    )
    assert moments > 5
    for moment in range(moments):
        left = moment
        with pytest.raises(KeyboardInterrupt):
            convert_directory(
                tmp_path / "source",
                tmp_path / "cut",
                to="json",
                frequencies=lambda _: {},
                now=START,
                advance=cut,
            )
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "whole"]
