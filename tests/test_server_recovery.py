"""Recovery from directories as they can be: torn, damaged, strange, of another configuration."""

import random

import pytest
import trio
from disk_memory import MemoryDisk
from durable import (
    DIRECTORY,
    METRICS,
    START,
    Journal,
    Points,
    contents,
    make_server,
    make_store,
    recovered,
    running,
    schedule_by_seed,
)
from test_server_wal import point
from trio.testing import MockClock

from ccstore.disk import layout, reading
from ccstore.memory import naming
from ccstore.model import Aggregation, Metric
from ccstore.server import restoring
from ccstore.server.recovery import Recovery, recover

COVERED = DIRECTORY / "columnar" / "covered"


@pytest.fixture(autouse=True)
def _quiet(caplog, monkeypatch):
    caplog.set_level("CRITICAL", "ccstore")
    schedule_by_seed(monkeypatch, 0)


async def make_directory(*, rounds: int = 2, shards: int = 2) -> tuple[MemoryDisk, Journal]:
    """Return a disk with checkpoints of some rounds and segments behind and before them."""
    disk, points = MemoryDisk(), Points(random.Random(1))
    server = await make_server(disk, shards=shards)
    async with running(server):
        for _ in range(rounds):
            for _ in range(4):
                assert await server.keep(points.some())
            await server.checkpoints.save_all()
        for _ in range(4):
            assert await server.keep(points.some())
    return disk, server.journal


def copy(disk: MemoryDisk) -> MemoryDisk:
    """Return a copy of a disk."""
    return disk.after_power_cut(random.Random(0))


def history(journal: Journal) -> set:
    """Return every value of every slot that was ever appended."""
    return {event[1] for event in journal.events if event[0] == "append"}


async def test_everything_comes_back():
    """Checkpoints and the log behind them give what memory had; the report counts it."""
    disk, journal = await make_directory()
    store, report, last = await recovered(disk)
    assert contents(store) == journal.latest()
    assert (report.unknown, report.refused, report.torn_bytes, report.damage) == (0, 0, 0, [])
    assert report.unclean
    assert not report.running
    assert report.files == report.files_read + report.files_skipped == len(layout.find_files(disk, DIRECTORY))
    assert report.bytes == report.bytes_read > 0
    assert report.progress == 1
    assert last == max(file.number for file in layout.find_files(disk, DIRECTORY))


async def test_everything_comes_back_in_small_steps(monkeypatch):
    """However little is read and put back at once, it is the same."""
    disk, journal = await make_directory()
    for module, name in (
        (reading, "_VALUES"), (naming, "_PLACES_AT_ONCE"), (naming, "_SERIES_AT_ONCE"),
        (restoring, "_SAMPLES_AT_ONCE"), (restoring, "_SLOTS_AT_ONCE"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 1)
    store, report, _ = await recovered(disk)
    assert contents(store) == journal.latest()
    assert (report.unknown, report.refused, report.torn_bytes, report.damage) == (0, 0, 0, [])
    assert report.bytes == report.bytes_read > 0


async def test_an_empty_directory():
    """Where nothing is, nothing is found, and numbers begin."""
    store, report, last = await recovered(MemoryDisk())
    assert contents(store) == {}
    assert (report.files, report.progress, report.unclean, last) == (0, 1.0, False, 0)


async def test_a_clean_stop():
    """A stop with a last round leaves nothing to replay."""
    disk, points = MemoryDisk(), Points(random.Random(1))
    server = await make_server(disk, shards=2)
    async with running(server):
        await server.keep(points.some())
        await server.checkpoints.save_all()
    store, report, _ = await recovered(disk)
    assert contents(store) == server.journal.latest()
    assert (report.unclean, report.samples) == (False, 0)


async def test_rounds_with_nothing_new_do_not_hide_later_segments():
    """New files have higher numbers than `covered`, although the last rounds left no files."""
    disk = MemoryDisk()
    server = await make_server(disk)
    async with running(server):
        await server.keep(point(1))
        for _ in range(4):
            await server.checkpoints.save_all()
    server = await make_server(disk, journal=server.journal)
    async with running(server):
        assert await server.keep(point(2, step=1))
    assert contents((await recovered(disk))[0]) == server.journal.latest()


async def test_what_the_log_brought_back_is_in_the_next_checkpoint():
    """What came from checkpoints is saved already; what came from the log is not."""
    disk, journal = await make_directory()
    server = await make_server(disk, shards=2, journal=journal)
    async with running(server):
        await server.checkpoints.save_all()
        assert 0 < server.checkpoints.slots < len(journal.latest())
        for path in [path for path in disk.names if path.suffix == ".log"]:
            disk.remove(path)
    assert contents((await recovered(disk))[0]) == journal.latest()


async def test_starts_with_one_round_each_leave_no_segments_behind():
    """A server that is restarted again and again removes what earlier ones wrote to the log."""
    disk, points, journal = MemoryDisk(), Points(random.Random(1)), Journal()
    for _ in range(5):
        server = await make_server(disk, shards=2, journal=journal)
        async with running(server):
            await server.keep(points.some())
            await server.checkpoints.save_all()
    assert len([path for path in disk.names if path.suffix == ".log"]) <= 2
    assert contents((await recovered(disk))[0]) == journal.latest()


async def test_a_segment_that_is_cut_anywhere():
    """A torn tail costs what was in it, and no more: the good prefix is there, whatever garbage follows."""
    disk, journal = MemoryDisk(), Journal()
    server = await make_server(disk, journal=journal)
    sizes = [0]
    (path,) = [layout.segment_path(layout.shard_directory(DIRECTORY, 0), 1)]
    async with running(server):
        for step in range(5):
            await server.keep(point(step + 1, step=step))
            sizes.append(disk.size(path))
    data = bytes(disk.map(path))
    for stop in range(len(data) + 1):
        for garbage in (b"", b"\x00" * 40, data[:60]):
            disk.put(path, data[:stop] + garbage)
            whole = sum(size <= stop for size in sizes) - 1
            await restart_and_append(copy(disk), whole, torn=stop + len(garbage) - sizes[whole])


async def restart_and_append(disk: MemoryDisk, whole: int, *, torn: int) -> None:
    """Restart on a torn log, append, restart again: the tail is told once, no value is lost or wrong."""
    server = await make_server(disk)
    before = [float(step + 1) for step in range(whole)]
    assert sorted(contents(server.store).values()) == before
    assert server.report.torn_bytes <= torn
    assert len(server.report.torn) == (server.report.torn_bytes > 0)
    async with running(server):
        await server.keep(point(9, step=9))
    store, report, _ = await recovered(disk)
    assert sorted(contents(store).values()) == [*before, 9]
    if not any("left alone" in text for text in server.report.torn):
        assert (report.torn_bytes, report.torn) == (0, [])


async def test_a_torn_end_is_cut_off():
    """What is cut is told with its place and reason; where the disk refuses, it is told again."""
    disk = MemoryDisk()
    server = await make_server(disk)
    async with running(server):
        await server.keep(point(1))
    path = layout.segment_path(layout.shard_directory(DIRECTORY, 0), 1)
    good = bytes(disk.map(path))
    disk.put(path, good + b"torn")
    told = f"{path}: byte {len(good)}: no whole header (4 bytes, an unknown number of samples lost): "

    def refuse(_number, name, _path):
        if name == "cut":
            raise OSError(30, "Read-only file system")

    disk.before = refuse
    _, report, _ = await recovered(disk)
    assert report.torn == [f"{told}cannot be cut off ([Errno 30] Read-only file system)"]
    disk.before = lambda *_: None
    _, report, _ = await recovered(disk)
    assert report.torn == [f"{told}cut off"]
    assert bytes(disk.map(path)) == good
    disk.put(path, b"a file of somebody else that has this name")
    _, report, _ = await recovered(disk)
    assert report.torn[0].endswith("left alone")
    assert bytes(disk.map(path)).startswith(b"a file of")


async def test_torn_and_torn_again():
    """The log goes on behind a torn segment in a new file, and all of them are read the next time."""
    disk, journal = MemoryDisk(), Journal()
    for life in range(4):
        server = await make_server(disk, journal=journal)
        async with running(server):
            for step in range(3):
                await server.keep(point(10 * life + step, step=10 * life + step))
            _, _ = await server.append(point(-1, step=1000 + life))
        path = max(path for path in disk.names if path.suffix == ".log")
        journal.events.pop()  # never acknowledged, and torn
        disk.put(path, bytes(disk.map(path))[:-3])
    store, report, _ = await recovered(disk)
    assert contents(store) == journal.latest()
    assert report.torn_bytes > 0


async def test_a_flipped_bit_anywhere():
    """One bit of any file costs what is in its block at most, and never makes up a value."""
    disk, journal = await make_directory(rounds=1, shards=1)
    known, latest = history(journal), journal.latest()
    whole = len(latest)
    chance = random.Random(5)
    for path in sorted(disk.names):
        size = disk.size(path)
        for at in sorted(chance.sample(range(size), min(size, 250))):
            left = copy(disk)
            left.names[path].data[at] ^= 1 << chance.randrange(8)
            store, report, last = await recovered(left)
            found = contents(store)
            assert set(found.items()) <= known, (path, at)
            if path == COVERED or path.suffix == ".ckpt":  # the log has it all
                assert found == latest, (path, at)
            if path != COVERED and len(found) < whole:
                assert report.damage or report.torn_bytes, (path, at)
            assert last >= 2


@pytest.mark.parametrize(
    "text", [b"", b"garbage", b"99999999\n", b"12 \n", b"\xff" * 64, b"-1 0\n", b"9" * 60]
)
async def test_garbage_in_covered(text):
    """Where `covered` says nothing that can be trusted, the whole log is read."""
    disk, journal = await make_directory()
    disk.put(COVERED, text)
    store, report, _ = await recovered(disk)
    assert contents(store) == journal.latest()
    assert report.files_skipped == 0


async def test_no_covered():
    """The same where it is missing."""
    disk, journal = await make_directory()
    disk.remove(COVERED)
    assert contents((await recovered(disk))[0]) == journal.latest()


async def test_a_damaged_checkpoint_is_replaced_by_its_segments():
    """The last checkpoint of a shard is destroyed: the log has all of it, and the next round saves it."""
    disk, journal = await make_directory(shards=1)
    path = max(path for path in disk.names if path.suffix == ".ckpt")
    disk.put(path, b"\x00" * disk.size(path))
    store, report, _ = await recovered(disk)
    assert contents(store) == journal.latest()
    assert str(path) in report.damage[0]
    server = await make_server(disk, journal=journal)
    async with running(server):
        await server.checkpoints.save_all()
    for left in [left for left in disk.names if left.suffix == ".log" or left == path]:
        disk.remove(left)
    assert contents((await recovered(disk))[0]) == journal.latest()


async def test_damage_and_a_gap_in_the_log():
    """Where damage makes all of the log be read, newer values of whole checkpoints still win over it."""
    disk = MemoryDisk()
    server = await make_server(disk, shards=2)
    names = [f"h{number}" for number in range(8)]
    async with running(server):
        for name in names:
            assert await server.keep(point(1, host=name))
        disk.before = _fail_logs
        for name in names:
            assert not await server.keep(point(2, host=name))
        disk.before = lambda *_: None
        await server.checkpoints.end_trouble()
    one, other = sorted(path for path in disk.names if path.suffix == ".ckpt")
    for damaged in (one, other):
        left = copy(disk)
        left.put(damaged, bytes(disk.size(damaged)))
        store, report, _ = await recovered(left)
        values = contents(store).values()
        assert len(values) == len(names)
        assert {1.0, 2.0} == set(values)  # the damaged one's from the log
        assert len(report.damage) == 1


def _fail_logs(_number, _name, path):
    if path.suffix == ".log":
        raise OSError(5, "Input/output error", str(path))


async def test_a_file_that_cannot_be_read():
    """An error of the disk costs that file and is reported; under another name it outlives all rounds."""
    disk, journal = await make_directory(shards=1)
    path = max(path for path in disk.names if path.suffix == ".ckpt")

    class Failing(MemoryDisk):
        def map(self, wanted):
            if wanted == path:
                raise OSError(5, "Input/output error", str(wanted))
            return super().map(wanted)

    failing = Failing(names=disk.names)
    store, report, _ = await recovered(failing)
    assert contents(store) == journal.latest()
    aside = path.with_name(f"{path.name}.unreadable")
    assert report.damage == [f"{path}: [Errno 5] Input/output error: '{path}'; set aside as {aside.name}"]
    assert path not in failing.names
    assert aside in failing.names


async def test_a_segment_that_could_not_be_read_is_there_for_another_start():
    """Its samples are missing until it has its name back, whatever was written and removed meanwhile."""
    disk, journal = await make_directory(shards=1)
    path = max(path for path in disk.names if path.suffix == ".log")

    class Failing(MemoryDisk):
        def map(self, wanted):
            if wanted == path:
                raise OSError(24, "Too many open files", str(wanted))
            return super().map(wanted)

    failing = Failing(names=disk.names)
    poor, _, _ = await recovered(failing)
    assert contents(poor) != journal.latest()
    failing.replace(path.with_name(f"{path.name}.unreadable"), path)
    rich, report, _ = await recovered(MemoryDisk(names=failing.names))
    assert contents(rich) == journal.latest()
    assert report.damage == []


async def test_strange_files():
    """Files of other names are left alone, empty ones do no harm, and incomplete ones go."""
    disk, journal = await make_directory()
    room = DIRECTORY / "columnar"
    strange = [
        room / "note.txt", room / "0" / "note.txt", room / "0" / "12.log.bak", room / "x" / "0000000001.log",
        room / "0" / "\u0663.log", room / "\u0661" / "0000000099.log", room / "0" / "-5.ckpt",
        DIRECTORY / "cluster" / "host" / "1.old", room / "7", room / "0" / "9999999999999999999999.log",
    ]  # fmt: skip
    for path in strange:
        disk.put(path, b"whatever")
    empty = [room / "0" / "0000000900.log", room / "0" / "0000000901.ckpt", room / "5" / "0000000902.log"]
    for path in empty:
        disk.put(path, b"")
    disk.put(room / "0" / "0000000903.ckpt.tmp", b"half")
    store, report, last = await recovered(disk)
    assert contents(store) == journal.latest()
    assert last == 902
    assert set(strange + empty) <= set(disk.names)
    assert room / "0" / "0000000903.ckpt.tmp" not in disk.names
    assert len(report.damage) == 1  # the empty checkpoint
    assert "0000000901.ckpt: incomplete" in report.damage[0]


async def test_checkpoints_that_are_too_old_are_skipped():
    """What ended before the retention is not even read."""
    disk = MemoryDisk()
    server = await make_server(disk)
    async with running(server):
        await server.keep(point(1, step=0))
        await server.checkpoints.save_all()
        await server.keep(point(2, step=1000))
        await server.checkpoints.save_all()
    store, report, _ = await recovered(disk, since=START + 5000)
    assert list(contents(store).values()) == [2]
    assert report.files_skipped == 2  # and the segment that checkpoints cover
    assert report.progress == 1


async def test_a_metric_that_is_not_configured_any_more():
    """Its samples are counted and left out; the others come back."""
    disk, journal = await make_directory()
    store, report, _ = await recovered(disk, metrics=METRICS[:1])
    assert contents(store) == {key: value for key, value in journal.latest().items() if key[1] == "load"}
    assert report.unknown > 0


@pytest.mark.parametrize("rounds", [0, 1])
@pytest.mark.parametrize(("frequency", "each"), [(5, 2), (10, 1), (20, 1)])
async def test_a_frequency_that_was_changed(rounds, frequency, each):
    """Values of a checkpoint cover as many of the new slots as they did time; nothing is made up."""
    disk = MemoryDisk()
    server = await make_server(disk)
    async with running(server):
        for step in range(4):
            await server.keep(point(step + 1, step=step))
        for _ in range(rounds):
            await server.checkpoints.save_all()
    store, report, _ = await recovered(disk, metrics=(Metric("load", frequency, Aggregation.NONE),))
    values = list(contents(store).values())
    assert set(values) <= {1.0, 2.0, 3.0, 4.0}
    assert values[-1] == 4
    if rounds:
        assert len(values) == {5: 8, 10: 4, 20: 3}[frequency]  # the grid of the first slot begins before it
    else:
        assert len(values) == {5: 4, 10: 4, 20: 3}[frequency]
    assert (report.unknown, report.refused) == (0, 0)


async def test_the_number_of_shards_changes():
    """Whatever was in which shard, it is found, with the newest value of each slot."""
    disk, points, journal = MemoryDisk(), Points(random.Random(3), hosts=8), Journal()
    for shards in (1, 4, 2, 3, 1, 5):
        server = await make_server(disk, shards=shards, journal=journal)
        assert contents(server.store) == journal.latest()
        async with running(server):
            for _ in range(5):
                await server.keep(points.some())
            if shards % 2:
                await server.checkpoints.save_all()
                await server.keep(points.some())
    assert contents((await recovered(disk))[0]) == journal.latest()


async def test_late_samples_behind_what_was_freed():
    """Samples older than those before them in the log were accepted, as these had been freed."""
    disk = MemoryDisk()
    server = await make_server(disk)
    async with running(server):
        await server.keep(point(1, step=2000))
        server.free(("c", "h0"))
        for step in (3, 5, 4, 600):
            assert await server.keep(point(step, step=step))
    store, report, _ = await recovered(disk)
    assert sorted(contents(store).values()) == [1, 3, 4, 5, 600]
    assert report.refused == 0
    assert server.journal.problems(contents(store)) == []


def test_progress_goes_up():
    """While recovery runs, the share of bytes that were read grows from 0 to 1."""
    seen: list[float] = []

    async def watch(report: Recovery) -> None:
        while True:
            if report.running:
                seen.append(report.progress)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        disk, _ = await make_directory(rounds=4, shards=3)
        report = Recovery()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, report)
            await trio.lowlevel.checkpoint()
            await recover(make_store(), disk, DIRECTORY, report, since=0)
            nursery.cancel_scope.cancel()
        assert report.progress == 1

    trio.run(main, clock=MockClock(autojump_threshold=0.0))
    assert seen == sorted(seen)
    assert len({value for value in seen if 0 < value < 1}) > 4
