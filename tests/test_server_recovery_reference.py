"""Recovery from the reference's files, whatever format is configured."""

import errno
import os
from pathlib import Path

import pytest
import trio
from attrs import evolve
from disk_memory import MemoryDisk
from disk_reference import entry, log_of, record, snapshot_bytes
from disk_reference_reader import read_directory
from durable import DIRECTORY, METRICS, START, contents, make_server, recovered, running
from reference_host import HOST, disk_of, key, load

from ccstore.disk.files import Scan
from ccstore.disk.reference.checkpoint import Checkpoint, Level
from ccstore.disk.reference.jsonfile import encode_json
from ccstore.memory.saving import count_unsaved
from ccstore.memory.store import Store
from ccstore.model import Aggregation, Metric
from ccstore.server.recovery import Recovery, recover

KINDS = ["json", "wal"]


@pytest.fixture(autouse=True)
def _no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "ccstore")


def unsaved(store: Store) -> int:
    return count_unsaved(store, store.index.root)[1]


@pytest.mark.parametrize("kind", ["columnar", *KINDS])
async def test_what_the_reference_left(kind: str) -> None:
    """Checkpoints of both formats and the log come back, each value in its slot, the later one of two."""
    tree = Level({"load": entry(10, START, [1, 2])}, {"core0": Level({"power": entry(60, START, [5])})})
    disk = disk_of(
        _1000_bin=snapshot_bytes(Checkpoint(1000, START + 20, tree)),
        _2000_json=encode_json(evolve(load(7, start=START + 20), start=2000)),
        current_wal=log_of([((), "load", START + 10, 3.0), (("core1", "mem0"), "load", START, 4.0)]),
    )
    store, report, _ = await recovered(disk, kind=kind)
    assert contents(store) == {
        key(START): 1, key(START + 10): 3, key(START + 20): 7,
        key(START, "power", "core0"): 5, key(START, "load", "core1", "mem0"): 4,
    }  # fmt: skip
    assert (report.files, report.files_read, report.slots, report.samples) == (3, 3, 4, 2)
    assert (report.unknown, report.refused, report.damage, report.unclean) == (0, 0, [], True)
    assert report.progress == 1.0


async def test_what_is_saved() -> None:
    """In the reference's format its checkpoints are the saved ones; for another one all has to be written."""
    files = {
        "_1000_bin": snapshot_bytes(evolve(load(1, 2), start=1000)),
        "current_wal": log_of([((), "load", START + 20, 3.0)]),
    }
    assert unsaved((await recovered(disk_of(**files), kind="wal"))[0]) == 1
    assert unsaved((await recovered(disk_of(**files)))[0]) == 3


async def test_a_reference_file_goes_when_columnar_ones_hold_it() -> None:
    """What was taken over is in the first columnar checkpoint, and read from nowhere else afterwards."""
    disk = disk_of(_1000_bin=snapshot_bytes(evolve(load(1, 2), start=1000)))
    server = await make_server(disk)
    async with running(server):
        await server.checkpoints.save_all()
    assert disk.list(DIRECTORY) == ["columnar"]
    store, _, _ = await recovered(disk)
    assert contents(store) == {key(START): 1, key(START + 10): 2}
    assert unsaved(store) == 0


async def test_columnar_files_count_for_those_of_the_reference() -> None:
    """After a change from columnar files, everything is written in the reference's format."""
    disk = MemoryDisk()
    server = await make_server(disk)
    async with running(server):
        await server.keep([(key(START), 1.0), (key(START + 10), 2.0)])
        await server.checkpoints.save_all()
        await server.keep([(key(START + 20), 3.0)])
    server = await make_server(disk, kind="wal")
    assert unsaved(server.store) == 3
    async with running(server):
        await server.checkpoints.save_all()
    for path in [path for path in disk.names if "columnar" in path.parts]:
        disk.remove(path)
    expected = {key(START): 1, key(START + 10): 2, key(START + 20): 3}
    assert read_directory(disk, DIRECTORY) == expected


async def test_older_than_the_retention() -> None:
    """Checkpoints that end before it are not read, and older records of a log are passed over."""
    disk = disk_of(
        _1000_bin=snapshot_bytes(load(1, start=1000)),
        _2000_bin=snapshot_bytes(load(1, start=2000)),
        _5000_bin=snapshot_bytes(load(2, start=START)),
        current_wal=log_of([((), "load", 2000, 8.0), ((), "load", START + 50, 3.0)]),
    )
    store, report, _ = await recovered(disk, since=START - 100)
    assert contents(store) == {key(START): 2, key(START + 50): 3}
    assert (report.files_read, report.files_skipped, report.progress) == (2, 2, 1.0)


async def test_another_frequency() -> None:
    """Files keep the frequency they were written with; in memory it is the configured one."""
    disk = disk_of(_1000_bin=snapshot_bytes(evolve(load(1, 2), start=1000)))
    store, report, _ = await recovered(disk, kind="wal", metrics=[Metric("load", 5, Aggregation.NONE)])
    assert sorted(contents(store).values()) == [1, 1, 2, 2]
    assert report.slots == 2


async def test_unknown_metrics() -> None:
    """What is not configured any more is counted and left out."""
    disk = disk_of(
        _1000_bin=snapshot_bytes(evolve(load(1, 2), start=1000)),
        current_wal=log_of([((), "load", START + 20, 3.0)]),
    )
    store, report, _ = await recovered(disk, kind="wal", metrics=METRICS[1:])
    assert (contents(store), report.unknown) == ({}, 3)


@pytest.mark.parametrize("name", ["1000.bin", "1000.json", "current.wal", "7.wal"])
async def test_damaged_files_are_set_aside(name: str) -> None:
    """A file that cannot be read is reported and gets another name, beside those set aside before."""
    disk = disk_of(_2000_bin=snapshot_bytes(evolve(load(1), start=2000)))
    disk.put(HOST / name, b"damaged")
    disk.put(HOST / f"{name}.corrupt", b"before")
    store, report, _ = await recovered(disk, kind="wal")
    assert contents(store) == {key(START): 1}
    assert disk.list(HOST) == sorted(["2000.bin", f"{name}.1.corrupt", f"{name}.corrupt"])
    (damage,) = report.damage
    assert damage.startswith(f"{HOST / name}: byte 0: ")
    assert damage.endswith(f"set aside as '{name}.1.corrupt'")
    assert (await recovered(disk, kind="wal"))[1].damage == []


async def test_a_log_torn_at_every_byte() -> None:
    """Whole records in front of a tear are read, and what comes after the restart is found at the next."""
    samples = [((), "load", START + 10 * step, float(step)) for step in range(3)]
    whole = log_of(samples)
    ends = [len(log_of(samples[:count])) for count in range(4)]
    for size in range(len(whole) + 1):
        for garbage in (b"", bytes(9)):
            disk = disk_of(current_wal=whole[:size] + garbage)
            server = await make_server(disk, kind="wal")
            count = sum(end <= size for end in ends[1:])
            expected = {key(START + 10 * step): float(step) for step in range(count)}
            assert contents(server.store) == expected
            async with running(server):
                await server.keep([(key(START + 100), 9.0)])
            again, report, _ = await recovered(disk, kind="wal")
            assert contents(again) == {**expected, key(START + 100): 9.0}
            assert (report.damage, report.torn_bytes) == ([], 0)


async def test_corruption_within_a_log() -> None:
    """The records in front of it count; of the rest a copy is kept, as there may be something in it."""
    good, bad = record(((), "load", START, 1.0)), record(((), "load", START + 10, 2.0))
    whole = log_of([]) + good + bad[:-1] + b"?" + good
    disk = disk_of(current_wal=whole)
    store, report, _ = await recovered(disk)
    assert contents(store) == {key(START): 1}
    assert bytes(disk.map(HOST / "current.wal")) == log_of([]) + good
    assert bytes(disk.map(HOST / "current.wal.corrupt")) == bad[:-1] + b"?" + good
    (damage,) = report.damage
    assert f"{len(bad + good)} bytes cut off, a copy is 'current.wal.corrupt'" in damage


async def test_a_torn_record_costs_itself() -> None:
    """What was being written is cut off and counted."""
    disk = disk_of(current_wal=log_of([((), "load", START, 1.0)]) + record(((), "load", START, 2.0))[:-1])
    _, report, _ = await recovered(disk)
    assert (report.torn_bytes, report.damage, disk.list(HOST)) == (30, [], ["current.wal"])


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\xa7\x1d"])
async def test_a_log_without_its_magic_number_is_begun_anew(data: bytes) -> None:
    """Nothing was ever in it."""
    server = await make_server(disk := disk_of(current_wal=data), kind="wal")
    async with running(server):
        await server.keep([(key(START), 1.0)])
    assert contents((await recovered(disk, kind="wal"))[0]) == {key(START): 1}


async def test_strange_names() -> None:
    """They are told and left alone; unfinished files go."""
    disk = disk_of(_1000_bin_tmp=b"half", _x_bin=b"", _1000_bin=snapshot_bytes(evolve(load(1), start=1000)))
    disk.put(DIRECTORY / "notes.txt", b"")
    disk.put(DIRECTORY / "c" / "7.bin", b"")
    disk.put(DIRECTORY / "c" / "h1" / "deeper" / "1.bin", b"")
    before = set(disk.names)
    store, report, _ = await recovered(disk)
    assert contents(store) == {key(START): 1}
    assert sorted(report.strange) == sorted(
        map(str, [DIRECTORY / "notes.txt", DIRECTORY / "c" / "7.bin", HOST / "x.bin"])
    )
    assert before - set(disk.names) == {HOST / "1000.bin.tmp"}


async def test_logs_are_read_in_their_order() -> None:
    """Of two values of a slot the later one counts, be it in a log that a killed server had put behind."""
    sample = ((), "load", START)
    disk = disk_of(
        _9_wal=log_of([(*sample, 1.0)]),
        _10_wal=log_of([(*sample, 2.0)]),
        current_wal=log_of([(*sample, 3.0)]),
    )
    store, _, last = await recovered(disk, kind="wal")
    assert contents(store) == {key(START): 3}
    assert (disk.list(HOST), last) == (["10.wal", "11.wal", "9.wal"], 11)


async def test_a_directory_that_cannot_be_listed() -> None:
    """It costs itself: the hosts beside it are loaded."""

    class Refusing(MemoryDisk):
        def scan(self, path: Path) -> Scan:
            if path.name in ("h1", "d"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return super().scan(path)

    disk = Refusing()
    for path in (HOST, DIRECTORY / "c" / "h1", DIRECTORY / "d" / "h"):
        disk.put(path / "1000.bin", snapshot_bytes(evolve(load(1), start=1000)))
    store, report, _ = await recovered(disk)
    assert contents(store) == {key(START): 1}
    assert [damage.partition(": ")[0] for damage in report.damage] == [
        str(DIRECTORY / "c" / "h1"), str(DIRECTORY / "d"),
    ]  # fmt: skip


async def test_an_error_of_the_disk_is_no_damage() -> None:
    """A file that cannot be read now keeps its name: the next start tries again."""

    class Failing(MemoryDisk):
        def map(self, path: Path) -> memoryview:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    disk = Failing()
    disk.put(HOST / "1000.bin", snapshot_bytes(evolve(load(1), start=1000)))
    disk.put(HOST / "9.wal", log_of([]))
    _, report, _ = await recovered(disk, since=2000)
    assert (disk.list(HOST), len(report.damage)) == (["1000.bin", "9.wal"], 2)


async def test_others_run_while_a_large_file_is_put_back() -> None:
    """A file of a million values, or of as many records, is put back in many steps."""
    tree = Level({"load": entry(10, START, [1.0] * 1_000_000)})
    disk = disk_of(_1000_bin=snapshot_bytes(Checkpoint(1000, START, tree)))
    store, report, turns = Store(METRICS, max_series=10, max_bytes=8 << 20), Recovery(), 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await recover(store, disk, DIRECTORY, report, since=0)
        nursery.cancel_scope.cancel()
    assert (report.slots, report.refused) == (1_000_000, 0)
    assert turns > 4


async def test_what_was_read_is_durable() -> None:
    """A log that a killed server had not synced is synced, as new samples go on where it ends."""
    disk = disk_of(current_wal=log_of([((), "load", START, 1.0)]))
    disk.names[HOST / "current.wal"].synced = 0
    await recovered(disk, kind="wal")
    assert disk.names[HOST / "1.wal"].synced == disk.size(HOST / "1.wal")


@pytest.mark.parametrize("kind", ["columnar", *KINDS])
async def test_strange_files(kind: str) -> None:
    """Files of other names are left alone and told, empty ones cost themselves, incomplete ones go."""
    disk = disk_of(
        _1000_bin=snapshot_bytes(Checkpoint(1000, START + 20, Level({"load": entry(10, START, [1, 2])})))
    )
    strange = [
        HOST / "note.txt", HOST / "007.bin", HOST / "1e3.json", HOST / "\u0663.wal", HOST / ("9" * 30),
        HOST / "99999999999999999999.bin", HOST / "1000.bin.bak", HOST.parent / "note", DIRECTORY / "5.bin",
    ]  # fmt: skip
    for path in strange:
        disk.put(path, b"whatever")
    aside, deeper = HOST / "900.bin.corrupt", HOST / "socket0" / "1000.bin"
    disk.put(aside, b"whatever")
    disk.put(deeper, b"whatever")
    empty = [HOST / "2000.bin", HOST / "3000.json"]
    for path in (*empty, HOST / "4.wal", HOST / "current.wal"):
        disk.put(path, b"")
    disk.put(HOST / "5000.bin.tmp", b"half")
    store, report, _ = await recovered(disk, kind=kind)
    assert contents(store) == {key(START): 1, key(START + 10): 2}
    assert sorted(report.strange) == sorted(map(str, strange))
    assert {*strange, aside, deeper} <= set(disk.names)
    assert [text.partition(": ")[0] for text in report.damage] == list(map(str, empty))
    assert HOST / "5000.bin.tmp" not in disk.names
