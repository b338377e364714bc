"""docs/reference/stream.md is held to the server: every exchange, every limit, the binary message."""

import json
import re
from pathlib import Path

import numpy as np
from apiserver import make_config
from live_tools import connected, live, messages_in
from test_docs_http import ALEX, METRICS

from ccstore.server.live import feed, hub, nodes, routes, session
from ccstore.wire import stream

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "stream.md").read_text(encoding="utf-8")
LINES = (
    "cpu_load,cluster=alex,hostname=a0001 value=1.5 1699999860",
    "cpu_load,cluster=alex,hostname=a0001 value=2.5 1699999920",
)
LATER = "cpu_load,cluster=alex,hostname=a0001 value=3.5 1699999980"
START = {"cluster": "alex", "jobId": 1001, "startTime": 1699999800, "user": "ann", "project": "thesis"}
STOP = {"cluster": "alex", "jobId": 1001, "stopTime": 1699999990}


def report(*nodes: dict[str, object]) -> tuple[str, dict[str, object]]:
    """Return a report of nodes, and where it is sent."""
    return "/api/nodestate/", {"cluster": "alex", "nodes": nodes}


BEFORE: list[tuple[str, object]] = [
    ("/api/write", "\n".join(LINES)),
    ("/api/jobs/start_job/", {**START, "numNodes": 1, "resources": [{"hostname": "a0001"}]}),
    report(
        {"hostname": "a0001", "states": ["allocated"], "jobsRunning": 1, "cpusAllocated": 16},
        {"hostname": "a0002", "states": ["idle"]},
    ),
]
"""What has been told of before the first exchange."""
HAPPENS: list[tuple[str, object]] = [
    ("/api/write", LATER),
    ("/api/jobs/stop_job/", STOP),
    report({"hostname": "a0002", "states": ["down"]}),
]
"""What happens before each exchange that the server begins."""


async def test_every_exchange(tmp_path: Path) -> None:
    """What the page sends is answered as the page says, in its order; names of tokens differ."""
    happens = iter(HAPPENS)
    exchanges = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    count = 0
    config = make_config(METRICS, clusters=ALEX, db=f"{tmp_path}/registry.db")
    async with live(config) as server, connected(server.port) as client:
        for path, body in BEFORE:
            assert (await server.ask("POST", path, body)).status in (200, 201)
        for exchange in exchanges:
            if not exchange.startswith(">"):
                assert (await server.ask("POST", *next(happens))).status == 200
            for line in exchange.splitlines():
                if line.startswith("> "):
                    await client.socket.send_message(line[2:])
                    continue
                got = await client.socket.get_message()
                assert isinstance(got, str)
                got = re.sub(r'"token":"[0-9a-f]+\.', '"token":"TOKEN.', got)
                if "{...}" in line:
                    begin, end = line[2:].split("{...}")
                    assert got.startswith(begin)
                    assert got.endswith(end)
                else:
                    assert line[2:] == got
                count += 1
    assert count == PAGE.count("\n< ") > 8


def test_the_numbers_of_the_page() -> None:
    """Limits and times are those of the code."""
    page = " ".join(PAGE.split())
    for text in (
        f"| connections | {_thousands(routes.MAX_CONNECTIONS)} |",
        f"| subscriptions of a connection | {session.MAX_SUBSCRIPTIONS} |",
        f"| different subscriptions of a server | {_thousands(hub.MAX_FEEDS)};",
        f"| clusters whose nodes are told | {_thousands(nodes.MAX_CLUSTERS)} |",
        f"| series of a subscription | {_thousands(hub.MAX_SERIES)},",
        f"| values of a subscription | {_thousands(hub.MAX_VALUES)}:",
        f"up to {_thousands(session.MAX_QUEUED)} messages and {session.MAX_QUEUED_BYTES >> 20} MiB",
        f"lag for more than {session._PATIENCE:.0f} s",
        f"After {session._HEARTBEAT:.0f} s without any message",
        f"the last {feed._KEPT_ENTRIES} messages or {feed._KEPT_BYTES >> 20} MiB",
        f"nobody listens to for {hub._LINGER:.0f} s",
        f"collected for {hub._PAUSE * 1000:.0f} ms",
        f"1 to {stream.MAX_WINDOW}",
        f"1 to {stream.MAX_ID} characters",
    ):
        assert text in page
    assert (hub._SHARE, hub._MAX_PAUSE) == (2, 1.0), "a third of the time, a second apart"


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def test_every_message_is_on_the_page() -> None:
    """Each kind of message that the server can send has an example."""
    sources = [
        Path(module.__file__ or "").read_text(encoding="utf-8") for module in (feed, hub, session, stream)
    ]
    sent = {op for source in sources for op in re.findall(r'encode_text\(\s*"(\w+)"', source)}
    shown = {
        json.loads(line)["op"]
        for line in re.findall(r"^(?:< )?(\{.*\})$", PAGE.replace("{...}", "{}"), re.MULTILINE)
    }
    assert (
        sent
        == shown
        == {
            "subscribed",
            "unsubscribed",
            "series",
            "data",
            "server",
            "error",
            "lagged",
            "heartbeat",
            "ended",
            "nodes",
        }
    )


def test_bytes() -> None:
    """The table of the binary message, offset by offset."""
    groups, times = np.array([2, 2, 7]), np.array([1000, 1060, 1001])
    body = stream.encode_data_binary(groups, times, np.array([1.5, np.nan, -2.0]), start=990, token="ab.1")
    (message,) = messages_in(stream.encode_frame("né", body))
    assert isinstance(message, bytes)
    assert message == (
        b"CCS1" + b"\4\0\0\0" + b"\2\0\0\0" + b"\3\0\0\0" + (990).to_bytes(8, "little")
        + b"\2\0\0\0\7\0\0\0" + b"\2\0\0\0\1\0\0\0" + b"\x0a\0\0\0\x46\0\0\0\x0b\0\0\0"
        + np.array([1.5, np.nan, -2.0], "<f4").tobytes() + b"ab.1" + "né".encode()
    )  # fmt: skip
