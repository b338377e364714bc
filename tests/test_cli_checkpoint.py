"""``ccstore checkpoint`` and its route, against a whole server."""

import re
import shutil
from pathlib import Path

import orjson
import pytest
import trio
from service_tools import NOW, Server, free_port, get_json, lines, make_config, post, running, wait_until
from test_server_nats_recovery import HeldDisk

from ccstore.cli import main
from ccstore.disk import layout
from ccstore.disk.files import OsDisk


async def checkpoint(url: str) -> int:
    """Run the command in a thread; return its exit code."""
    return await trio.to_thread.run_sync(main.run, ["checkpoint", "--url", url])


async def write(server: Server, *hosts: str, time: int = NOW) -> None:
    """Store a value of each host."""
    assert (await post(server, "/api/write?cluster=c", lines(hosts, time=time))).status == 200


def directory(server: Server) -> Path:
    """Return where the server keeps its files."""
    assert server.services.durability is not None
    return server.services.durability.directory


def checkpoints(server: Server) -> list[layout.ColumnarFile]:
    """Return the checkpoints on disk."""
    return [file for file in layout.find_files(OsDisk(), directory(server)) if not file.is_segment]


async def test_what_is_new_is_written_before_the_answer(capfd: pytest.CaptureFixture[str]) -> None:
    """The line tells what is on disk then; asked again, there is nothing new."""
    async with running(make_config()) as server:
        await write(server, *[f"h{n}" for n in range(40)])
        await write(server, "h1", time=NOW + 60)
        assert await checkpoint(server.url) == 0
        found = checkpoints(server)
        out, err = capfd.readouterr()
        assert re.fullmatch(rf"41 values in {len(found)} files \(\d.*B\), \d+\.\d s\n", out)
        assert err == ""
        assert await checkpoint(server.url) == 0
        assert capfd.readouterr().out.startswith("nothing new, ")
        assert checkpoints(server) == found


async def test_the_answer_of_the_route() -> None:
    """It has what the round wrote, and nothing of the rounds before."""
    async with running(make_config()) as server:
        for hosts in (("h1", "h2"), ("h3",)):
            await write(server, *hosts)
            before = {file.path for file in checkpoints(server)}
            answer = orjson.loads((await post(server, "/api/checkpoint", b"")).body)
            new = [file for file in checkpoints(server) if file.path not in before]
            assert answer["seconds"] >= 0
            assert {key: answer[key] for key in ("files", "values", "bytes")} == {
                "files": len(new),
                "values": len(hosts),
                "bytes": sum(file.size for file in new),
            }
        assert (await get_json(server, "/api/stats"))["checkpoint_progress"] == 1


async def test_a_disk_that_fails_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """The command says why, and the next one succeeds when the disk is back."""
    async with running(make_config()) as server:
        await write(server, "h1")
        room = directory(server) / layout.ROOM
        shutil.move(room, room.with_name("away"))
        room.write_bytes(b"")
        assert await checkpoint(server.url) == 1
        err = capfd.readouterr().err
        assert re.search(r"^ccstore: http://\S+/api/checkpoint: 503 [\w ]+: checkpoints: .*Not a dir", err), (
            err
        )
        assert err.count("\n") == 1
        room.unlink()
        shutil.move(room.with_name("away"), room)
        assert await checkpoint(server.url) == 0
        assert capfd.readouterr().out.startswith("1 value in 1 file ")


async def test_a_server_that_reads_its_files_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    """A checkpoint of half of the samples helps nobody; `Retry-After` tells how long that may take."""
    config, disk = make_config(), HeldDisk()
    async with running(config) as server:
        await write(server, "h1")
    async with running(config, disk.put_into) as server:
        assert await checkpoint(server.url) == 1
        assert "recovering: 0%" in capfd.readouterr().err
        assert (await post(server, "/api/query", b"{}"))["Retry-After"] == "1"
        durability = server.services.durability
        assert durability is not None
        durability.recovery.bytes, durability.recovery.bytes_read = 100, 25
        for seconds, least, most in ((0.01, 1, 1), (5.0, 15, 30), (1000.0, 60, 60)):
            durability.began = trio.current_time() - seconds
            answer = await post(server, "/api/query", b"{}")
            assert answer.status == 503
            assert least <= int(answer["Retry-After"]) <= most
        durability.recovery.bytes = durability.recovery.bytes_read = 0
        disk.may_read.set()
        await wait_until(lambda: server.services.problems() == [])
        assert await checkpoint(server.url) == 0


async def test_no_server(capfd: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens there is one line."""
    assert await checkpoint(f"http://127.0.0.1:{free_port()}") == 1
    assert re.fullmatch(r"ccstore: http://127\S+: cannot connect \(.*\)\n", capfd.readouterr().err)
