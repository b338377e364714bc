"""Many clients of streams in one process, with as little work for each as can be.

Run as ``python -m ccstore.cli.bench.listeners PORT COUNT`` with the subscription on stdin: it prints a line
when all have got their snapshot, and when stdin closes, what was measured, as JSON. A value of the last
series is when it was sent (ms, of the monotonic clock); each client holds that against the clock when the
value comes.
"""

import base64
import json
import os
import resource
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress

import numpy as np
from attrs import define, field

CLOCK = 1 << 23
"""Milliseconds after which the clock of the probes begins anew: a float32 holds no more."""

_HEAD = struct.Struct("<4sIIIq")
_BINARY, _SHORT, _LONG = 2, 126, 127  # of RFC 6455, 5.2


@define(eq=False)
class Listener:
    """One client."""

    sock: socket.socket
    probe: int
    received: bytearray = field(factory=bytearray)
    has_begun: bool = False
    messages: int = 0
    delays: list[int] = field(factory=list)

    def read(self) -> None:
        """Take what has come."""
        with suppress(BlockingIOError):
            if not (data := self.sock.recv(1 << 18)):
                raise ConnectionError("the server has closed the stream")
            self.received += data
        while (frame := self._frame()) is not None:
            kind, payload = frame
            if kind == _BINARY:
                self.messages += 1
                self._take(payload)
                self.has_begun = True

    def _frame(self) -> tuple[int, bytes] | None:
        data = self.received
        if len(data) < 2:
            return None
        length, at = data[1], 2
        if length in (_SHORT, _LONG):
            size = 2 if length == _SHORT else 8
            at += size
            if len(data) < at:
                return None
            length = int.from_bytes(data[2:at], "big")
        if len(data) < at + length:
            return None
        payload = bytes(data[at : at + length])
        kind = data[0] & 15
        del data[: at + length]
        return kind, payload

    def _take(self, payload: bytes) -> None:
        """Look for the probe, which is the last series."""
        _, _, series, count, _ = _HEAD.unpack_from(payload)
        if not series or not self.has_begun:
            return
        (last,) = struct.unpack_from("<I", payload, 24 + 4 * (series - 1))
        if last == self.probe:
            sent = int(np.frombuffer(payload, "<f4", count, 24 + 8 * series + 4 * count)[-1])
            self.delays.append((clock() - sent) % CLOCK)


def clock() -> int:
    """Return the time of the probes, milliseconds."""
    return int(time.monotonic() * 1000) % CLOCK


def _connect(port: int, subscription: bytes, probe: int) -> Listener:
    sock = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET /api/stream HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    if b" 101 " not in head:
        raise ConnectionError(f"the server answered {head!r}")
    size = len(subscription)
    is_long = size > 0xFFFF
    length = bytes([128 + (_LONG if is_long else _SHORT)]) + size.to_bytes(8 if is_long else 2, "big")
    sock.sendall(b"\x81" + length + bytes(4) + subscription)  # masked with zeros
    sock.setblocking(False)
    return Listener(sock, probe)


def main() -> None:
    """Run the clients until stdin closes."""
    os.nice(19)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, count = int(sys.argv[1]), int(sys.argv[2])
    subscription = sys.stdin.buffer.readline()
    probe = len(json.loads(subscription)["query"]["queries"]) - 1
    with selectors.DefaultSelector() as selector:
        listeners = [_connect(port, subscription, probe) for _ in range(count)]
        for listener in listeners:
            selector.register(listener.sock, selectors.EVENT_READ, listener)
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        is_told, done = False, False
        while not done:
            for key, _ in selector.select():
                if key.data is None:
                    done = True
                else:
                    key.data.read()
            if not is_told and all(listener.has_begun for listener in listeners):
                is_told = True
                sys.stdout.write("ready\n")
                sys.stdout.flush()
    delays = sorted(delay for listener in listeners for delay in listener.delays) or [0]
    found = {
        "messages": sum(listener.messages for listener in listeners),
        "p50": delays[len(delays) // 2],
        "p99": delays[len(delays) * 99 // 100],
        "most": delays[-1],
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
