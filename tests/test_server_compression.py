"""Long answers are compressed for those who ask, and are the same for all."""

import io
import json

import pytest
import zstandard
from apiserver import Server, running
from serving import Answer, connected
from werkzeug.http import parse_accept_header

from ccstore.server import compression

HOSTS, SLOTS = 60, 700


def decode(data: bytes) -> bytes:
    """Return what a client makes of an answer."""
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()


async def ask(server: Server, hosts: int, *accepted: str) -> Answer:
    """Ask for all values of some hosts."""
    queries = [{"metric": "load", "host": f"h{host}"} for host in range(hosts)]
    body = {"cluster": "c", "from": 10**6, "to": 10**6 + 60 * SLOTS, "queries": queries}
    return await server.ask(
        "POST", "/api/query", body, headers=[("Accept-Encoding", one) for one in accepted]
    )


async def fill(server: Server) -> None:
    """Store values of which a whole answer is long."""
    for host in range(HOSTS):
        values = ((host * 7919 + slot * 104729) % 100_003 / 7 for slot in range(SLOTS))
        await server.write(
            *(
                f"load,cluster=c,hostname=h{host} value={value:.3f} {10**6 + 60 * slot}"
                for slot, value in enumerate(values)
            )
        )


async def test_a_long_answer_is_compressed_for_those_who_name_it() -> None:
    """It is the same when it is decoded; caches are told on what it depends."""
    async with running() as server:
        await fill(server)
        plain = await ask(server, HOSTS)
        packed = await ask(server, HOSTS, "gzip, zstd;q=0.5")
        head = await server.ask("HEAD", "/api/query", b"{}", headers=[("Accept-Encoding", "zstd")])
    assert (plain["Content-Encoding"], packed["Content-Encoding"]) == (None, "zstd")
    assert plain["Vary"] == packed["Vary"] == "Accept-Encoding"
    assert packed["Content-Type"] == plain["Content-Type"] == "application/json"
    assert len(packed.body) < 0.7 * len(plain.body)
    assert decode(packed.body) == plain.body
    assert len(json.loads(plain.body)["results"]) == HOSTS
    assert (head.status, head.body) == (200, b"")


async def test_a_short_answer_is_not_compressed() -> None:
    """Up to the size from which answers are streamed it would save little."""
    async with running() as server:
        await fill(server)
        answer = await ask(server, 5, "zstd")
    assert answer["Content-Encoding"] is None
    assert answer["Content-Length"] == str(len(answer.body))


async def test_a_client_that_leaves_in_the_middle() -> None:
    """Costs nobody anything; the next one gets its answer."""
    async with running() as server:
        await fill(server)
        queries = [{"metric": "load", "host": f"h{host}"} for host in range(HOSTS)] * 30
        body = json.dumps({"cluster": "c", "from": 0, "to": 2 * 10**6, "queries": queries}).encode()
        async with connected(server.port) as client:
            headers = [("Accept-Encoding", "zstd"), ("Content-Length", str(len(body)))]
            await client.send_head("POST", "/api/query", headers)
            await client.stream.send_all(body)
            await client.event()
        assert len(decode((await ask(server, HOSTS, "zstd")).body)) > 300_000


@pytest.mark.parametrize(
    ("header", "wanted"),
    [("zstd", True), ("ZSTD;q=1", True), ("gzip, zstd", True), ("zstd;q=0", False), ("*", False),
     ("gzip, deflate, br", False), ("", False), ("zstd;q=odd", False), (";;,=", False)],
)  # fmt: skip
def test_who_wants_it(header: str, wanted: bool) -> None:
    """Whoever names it, unless with the quality 0."""
    assert compression.is_wanted(parse_accept_header(header)) == wanted
