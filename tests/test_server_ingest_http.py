"""``/api/write`` of a whole server: what becomes of each line, of a body, and of its sender."""

import gzip
import json
from collections.abc import Callable

import pytest
import trio
from apiserver import Server, error_of, example, running, series
from serving import NOW, connected
from trio.testing import MockClock

LINE = "m,cluster=c,hostname=h value=1 1000"
MIB = 1024 * 1024


async def until(true: Callable[[], bool]) -> None:
    """Let others run until something is true; the test's timeout bounds it."""
    while not true():
        await trio.lowlevel.checkpoint()


async def stored(server: Server, metric: str = "m", host: str = "h", cluster: str = "c") -> list[float]:
    """Return the values of a series, [] if there is none."""
    query = {"cluster": cluster, "from": 0, "to": 2**40, "with-padding": False}
    answer = json.loads(await server.query({**query, "queries": [{"metric": metric, "host": host}]}))
    return answer["results"][0][0]["data"] if answer["results"][0] else []


@pytest.mark.parametrize("target", ["/api/write", "/api/write/", "/api/write/x", "/api/write?cluster=other"])
async def test_good_lines(target: str) -> None:
    """Exactly 200 with an empty body, and what was sent can be asked for."""
    async with running() as server:
        answer = await server.ask("POST", target, "\n".join(example()) + "\n")
        assert (answer.status, answer.body, answer["Content-Type"]) == (200, b"", "application/json")
        assert server.counts() == {"received": 15, "stored": 15}
        assert await stored(server, "x") == [0.126, 1.126, 2.126, 3.126, 4.126]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post(method: str) -> None:
    """Other methods are refused and store nothing."""
    async with running() as server:
        answer = await server.ask(method, "/api/write", LINE)
        assert (answer.status, answer["Allow"], server.counts()) == (405, "POST", {})


FUTURE = NOW + 300 + 2 * 60
OUTCOMES = {
    "good": (LINE, "stored", None),
    "carriage return": (f"{LINE}\r\n", "stored", None),
    "last second that is not future": (f"m,cluster=c,hostname=h value=1 {FUTURE}", "stored", None),
    "future": (f"m,cluster=c,hostname=h value=1 {FUTURE + 1}", "future", None),
    "unknown metric": ("unknown,cluster=c,hostname=h value=1 1000", "unknown_metric", None),
    "unknown metric, garbage": ("unk,,, garbage", "unknown_metric", None),
    "event": ('job,function=start_job event="{\\"jobId\\":1}"', "unknown_metric", None),
    "no cluster": ("m,hostname=h value=1 1000", "refused_component", None),
    "no host": ("m,cluster=c value=1 1000", "refused_component", None),
    "bad host": ("m,cluster=c,hostname=../h value=1 1000", "refused_component", None),
    "dot": ("m,cluster=.,hostname=h value=1 1000", "refused_component", None),
    "wrong case": ("m,Cluster=c,Host=h value=1 1000", "refused_component", None),
    "bad value": ("m,cluster=c,hostname=h value=oops 1000", "bad_line", "oops"),
    "string": ('m,cluster=c,hostname=h value="1" 1000', "bad_line", "string"),
    "bool": ("m,cluster=c,hostname=h value=true 1000", "bad_line", "true"),
    "NaN": ("m,cluster=c,hostname=h value=NaN 1000", "bad_line", "NaN"),
    "beyond float32": ("m,cluster=c,hostname=h value=1e39 1000", "bad_line", "1e39"),
    "other field": ("m,cluster=c,hostname=h other=1 1000", "bad_line", "other"),
    "no field": ("m,cluster=c,hostname=h", "bad_line", ""),
    "bad time": ("m,cluster=c,hostname=h value=1 1700000000.5", "bad_line", ""),
    "two types": ("m,cluster=c,hostname=h,type=a,type=b value=1 1000", "bad_line", "type"),
    "no UTF-8": (b"m,cluster=c,hostname=\xff value=1 1000", "bad_line", ""),
    "blank": ("   ", None, None),
    "comment": ("# m,cluster=c,hostname=h value=1", None, None),
}


@pytest.mark.parametrize("name", sorted(OUTCOMES))
async def test_each_line_has_one_outcome(name: str) -> None:
    """It is counted once; only a bad line makes the status 400, and good lines around it are stored."""
    line, outcome, text = OUTCOMES[name]
    raw = line if isinstance(line, bytes) else line.encode()
    before, after = b"m,cluster=c,hostname=a value=1 1000\n", b"\nm,cluster=c,hostname=z value=2 1000"
    async with running() as server:
        answer = await server.ask("POST", "/api/write", before + raw + after)
        counts = server.services.ledger.total()
        expected = {"stored": 2, "received": 2 + bool(outcome)}
        if outcome:
            expected[outcome] = expected.get(outcome, 0) + 1
        assert server.counts() == expected
        assert counts["received"] == sum(counts.values()) - counts["received"]
        assert (await stored(server, host="a"), await stored(server, host="z")) == ([1], [2])
        if text is None:
            assert (answer.status, answer.body) == (200, b"")
        else:
            error = error_of(answer)
            (told,) = error["lines"]
            assert (answer.status, error["stored"], error["rejected"], told["line"]) == (400, 2, 1, 2)
            assert error["error"] == f"line 2: {told['error']}"
            assert text in told["error"]


async def test_empty_message() -> None:
    """Nothing is received, successfully."""
    async with running() as server:
        for body in (b"", b"\n", b" \n\r\n", None):
            assert (await server.ask("POST", "/api/write", body)).status == 200
        assert server.counts() == {}


async def test_late_and_overwritten() -> None:
    """Both are counted, and neither changes the status."""
    async with running() as server:
        await server.write(*series("m", "h", [1, 2], start=10_000))
        await server.write(*series("m", "h", [3], start=10_000), *series("m", "h", [4], start=9000))
        assert server.counts() == {"received": 4, "stored": 2, "overwritten": 1, "late": 1}
        assert await stored(server) == [3, 2]


async def test_the_worked_example_of_a_bad_line() -> None:
    """Of 1000 lines for 1000 hosts, one is bad: 999 are stored, and its host does not exist."""
    lines = [f"m,cluster=c,hostname=h{k} value={k} 1000" for k in range(1, 1001)]
    lines[499] = "m,cluster=c,hostname=h500 value=oops 1000"
    async with running() as server:
        answer = await server.ask("POST", "/api/write", "\n".join(lines))
        error = error_of(answer)
        assert (answer.status, error["stored"], error["rejected"]) == (400, 999, 1)
        assert error["lines"] == [{"line": 500, "error": error["error"].removeprefix("line 500: ")}]
        hosts = server.services.store.hosts("c")
        assert sorted(hosts) == sorted(f"h{k}" for k in range(1, 1001) if k != 500)
        assert server.services.store.locate(("c", "h500"), create=False) == -1


async def test_the_first_twenty_are_listed() -> None:
    """All are counted, whatever the reason; the list has the first, with their lines in the whole body."""
    bad = "m,cluster=c,hostname=h value=x 1000"
    lines = ["# " + "x" * 1000] * 1500 + [bad, LINE] * 30  # 1.5 MB: several blocks
    async with running() as server:
        answer = await server.ask("POST", "/api/write", "\n".join(lines))
        error = error_of(answer)
        assert (answer.status, error["stored"], error["rejected"]) == (400, 30, 30)
        assert [told["line"] for told in error["lines"]] == list(range(1501, 1541, 2))


async def test_a_bad_line_behind_many_refused_ones() -> None:
    """The status does not depend on which lines are listed."""
    lines = [f"m,cluster=c,hostname=/{k} value=1 1000" for k in range(30)]
    async with running() as server:
        assert (await server.ask("POST", "/api/write", "\n".join(lines))).status == 200
        answer = await server.ask("POST", "/api/write", "\n".join([*lines, "m,cluster=c,hostname=h value=x"]))
        error = error_of(answer)
        assert (answer.status, error["stored"], error["rejected"]) == (400, 0, 31)
        assert len(error["lines"]) <= 20
        assert server.counts() == {"received": 61, "refused_component": 60, "bad_line": 1}


@pytest.mark.parametrize(
    ("query", "cluster"),
    [
        ("?cluster=c", "c"),
        ("?cluster=a%20b%2Cd", "a b,d"),
        ("?cluster=d%C3%BC", "dü"),
        ("?cluster=a+b", "a b"),
    ],
)
async def test_default_cluster(query: str, cluster: str) -> None:
    """It is decoded as any parameter, and for lines without a cluster alone."""
    lines = "m,hostname=h value=1 1000\nm,cluster=own,hostname=h value=2 1000"
    async with running() as server:
        assert (await server.ask("POST", f"/api/write{query}", lines)).status == 200
        assert await stored(server, cluster=cluster) == [1]
        assert await stored(server, cluster="own") == [2]


@pytest.mark.parametrize("query", ["", "?cluster=", "?cluster=a/b", "?cluster=..", "?cluster=" + "x" * 256])
async def test_default_cluster_that_is_none(query: str) -> None:
    """Lines that need it are refused one by one."""
    async with running() as server:
        answer = await server.ask("POST", f"/api/write{query}", f"m,hostname=h value=1 1000\n{LINE}")
        assert answer.status == 200
        assert server.counts() == {"received": 2, "stored": 1, "refused_component": 1}


async def test_lines_without_a_time() -> None:
    """All get the time of arrival, whatever stood in the line before."""
    async with running() as server:
        line = "m,cluster=c,hostname={} value=1"
        await server.write(line.format("a") + " 1000", line.format("b"), line.format("c"))
        for host in ("b", "c"):
            (chunk,) = server.services.store.chunks(
                next(n for _, n in server.services.store.series_at(server.services.store.locate(("c", host))))
            )
            assert chunk.start == NOW - 30


async def test_times_in_any_unit() -> None:
    """Seconds, milliseconds, microseconds and nanoseconds of one time are one slot."""
    async with running() as server:
        times = ["1600000000", "1600000000123", "1600000000123456", "1600000000123456789"]
        await server.write(*(f"m,cluster=c,hostname=h value={k} {time}" for k, time in enumerate(times)))
        assert server.counts() == {"received": 4, "stored": 1, "overwritten": 3}
        assert await stored(server) == [3]


# --- bodies


async def test_chunked_body() -> None:
    """Chunks may end anywhere, also within a line and within a letter."""
    text = "\n".join(f"m,cluster=dü,hostname=h{k} value={k} 1000" for k in range(50)).encode()
    async with running() as server, connected(server.port) as client:
        await client.send_head("POST", "/api/write", [("Transfer-Encoding", "chunked")])
        for start in range(0, len(text), 7):
            piece = text[start : start + 7]
            await client.stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.stream.send_all(b"0\r\n\r\n")
        assert (await client.answer()).status == 200
        assert server.counts() == {"received": 50, "stored": 50}


@pytest.mark.parametrize(
    "end", [b"", b"m,cluster=c,hostname=h value=12", b"m,cluster=c,hostname=h value=123 17"]
)
async def test_a_body_that_is_cut(end: bytes) -> None:
    """Whole lines are stored; half a line is neither stored nor counted, however good it looks."""
    async with running() as server:
        async with connected(server.port) as client:
            await client.send_head("POST", "/api/write", [("Content-Length", "1000")])
            await client.stream.send_all(b"m,cluster=c,hostname=a value=1 1000\n" + end)
        await until(lambda: server.services.intake.cut_bodies == 1)
        assert server.counts() == {"received": 1, "stored": 1}
        assert server.services.store.hosts("c") == ["a"]
        await server.write(LINE)  # and the server goes on


async def test_a_body_that_announces_too_much() -> None:
    """It is refused before a line is stored."""
    async with running(limits={"max_body_size_bytes": 100}) as server:
        assert (await server.ask("POST", "/api/write", LINE.ljust(100))).status == 200
        answer = await server.ask("POST", "/api/write", LINE.ljust(101))
        assert answer.status == 413
        assert error_of(answer) == {
            "error": "request body: too large (got 101 bytes, limit 100)",
            "stored": 0, "rejected": 0, "lines": [],
        }  # fmt: skip
        assert server.counts() == {"received": 1, "stored": 1}
        assert server.services.intake.refused_bodies == 1


async def test_a_chunked_body_that_is_too_large() -> None:
    """It is refused when it turns out; what was stored before is told."""
    lines = ("".join(f"m,cluster=c,hostname=h value={k} {1000 + 60 * k}\n" for k in range(200_000))).encode()
    async with running(limits={"max_body_size_bytes": len(lines) - 1}) as server:
        async with connected(server.port) as client:
            await client.send_head("POST", "/api/write", [("Transfer-Encoding", "chunked")])
            await client.stream.send_all(b"%x\r\n%b\r\n0\r\n\r\n" % (len(lines), lines))
            answer = await client.answer()
        error = error_of(answer)
        assert answer.status == 413
        assert 0 < error["stored"] < 200_000
        assert server.counts() == {"received": error["stored"], "stored": error["stored"]}
        assert server.services.intake.refused_bodies == 1


async def test_a_body_that_stops(autojump_clock: MockClock) -> None:
    """After a minute of silence it is given up; what was stored before is told."""
    autojump_clock.autojump_threshold = 0.05
    async with running() as server, connected(server.port) as client:
        await client.send_head("POST", "/api/write", [("Content-Length", "1000")])
        await client.stream.send_all(f"{LINE}\n{LINE}\nm,cluster=c".encode())
        answer = await client.answer()
        assert answer.status == 408
        assert error_of(answer) == {
            "error": "request body: nothing came for 60 s", "stored": 2, "rejected": 0, "lines": []
        }  # fmt: skip
        assert server.services.intake.refused_bodies == 1


async def test_encodings_are_ignored() -> None:
    """A body is plain text whatever its headers say; a compressed one is a bad line."""
    async with running() as server:
        for header in [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]:
            assert (await server.ask("POST", "/api/write", LINE, headers=[header])).status == 200
        packed = gzip.compress(LINE.encode() * 100, mtime=0)
        answer = await server.ask("POST", "/api/write", packed, headers=[("Content-Encoding", "gzip")])
        assert answer.status == 400
        counts = server.counts()
        assert (counts["stored"], counts["overwritten"]) == (1, 1)
        assert counts["received"] == 2 + counts["bad_line"]


@pytest.mark.parametrize("last", [b"", b"\n" + LINE.encode()], ids=["at the end", "in the middle"])
@pytest.mark.parametrize("size", [1025, 700_000, 2 * MIB])
async def test_a_line_that_is_too_long(size: int, last: bytes) -> None:
    """It costs itself alone, is counted once, and is not waited for, however long it is."""
    long = b"m,cluster=c,hostname=h,x=".ljust(size, b"y")
    async with running(limits={"max_line_length_bytes": 1024}) as server:
        answer = await server.ask("POST", "/api/write", LINE.encode() + b"\n" + long + last)
        assert answer.status == 200
        expected = {"received": 2, "stored": 1, "limit": 1}
        assert server.counts() == (expected | {"received": 3, "overwritten": 1} if last else expected)


async def test_a_line_of_just_the_limit() -> None:
    """The newline does not count."""
    async with running(limits={"max_line_length_bytes": 1024}) as server:
        await server.write(LINE.ljust(1024), LINE.ljust(1024) + "\r")
        assert server.counts() == {"received": 2, "stored": 1, "limit": 1}


@pytest.mark.parametrize("before", [0, 100, 512 * 1024 - 200])
async def test_strings_with_newlines_and_block_borders(before: int) -> None:
    """A string field may hold newlines; the line is bad, and what follows is not part of it."""
    lines = "# " + "x" * before + "\n" + 'm,cluster=c,hostname=h value="a\nb\nc" 1000\n' * 5 + LINE + "\n"
    async with running(limits={"max_line_length_bytes": 1024 * 1024}) as server:
        answer = await server.ask("POST", "/api/write", lines + "# " + "y" * 600_000)
        assert answer.status == 400
        assert [told["line"] for told in error_of(answer)["lines"]] == [2, 3, 4, 5, 6]
        assert server.counts() == {"received": 6, "stored": 1, "bad_line": 5}


# --- others


async def test_many_senders_at_once() -> None:
    """Their bodies do not mix, and every line is counted."""
    async with running() as server:

        async def send(number: int) -> None:
            lines = [f"m,cluster=c,hostname=h{number} value={k} {1000 + 60 * k}" for k in range(2000)]
            lines += ["m,cluster=c,hostname=h value=bad"] * number
            answer = await server.ask("POST", "/api/write", "\n".join(lines))
            assert (answer.status, bool(number)) in ((200, False), (400, True))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(send, number)
        bad = sum(range(20))
        assert server.counts() == {"received": 40_000 + bad, "stored": 40_000, "bad_line": bad}
        for number in range(20):
            assert await stored(server, host=f"h{number}") == list(range(2000))


async def test_a_sender_that_stops_harms_nobody() -> None:
    """A body that does not go on waits, and others are stored meanwhile; then it goes on."""
    async with running() as server, connected(server.port) as client:
        await client.send_head("POST", "/api/write", [("Content-Length", str(len(LINE)))])
        await client.stream.send_all(LINE[:20].encode())
        await server.write(*series("m", "other", range(1000)))
        await client.stream.send_all(LINE[20:].encode())
        assert (await client.answer()).status == 200
        assert await stored(server) == [1]


async def test_a_sender_that_leaves_after_its_last_byte() -> None:
    """All of its lines are stored, whoever waits for the answer."""
    lines = "\n".join(f"m,cluster=c,hostname=h value={k} {1000 + 60 * k}" for k in range(50_000)).encode()
    async with running() as server:
        async with connected(server.port) as client:
            await client.send_head("POST", "/api/write", [("Content-Length", str(len(lines)))])
            await client.stream.send_all(lines)
        await until(lambda: server.counts().get("received") == 50_000)
        assert server.services.intake.cut_bodies == 0


async def test_a_large_body_does_not_hold_the_loop() -> None:
    """While millions of bytes are written, others get a turn after every few thousand lines."""
    lines = "\n".join(f"m,cluster=c,hostname=h value={k} {1000 + 60 * k}" for k in range(100_000))
    turns = 0
    async with running() as server:

        async def count_turns() -> None:
            nonlocal turns
            before = 0
            while True:
                await trio.lowlevel.checkpoint()
                received = server.services.ledger.total()["received"]
                turns += received > before
                assert received - before <= 2 * 8192  # Trio chooses who is first in a turn
                before = received

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            await server.write(lines)
            nursery.cancel_scope.cancel()
    assert turns >= 100_000 // (2 * 8192)
