"""A client of streams for tests: it keeps what it was told as a table, as a page or a program would."""

import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import apiserver
import numpy as np
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Message as Frame

from ccstore.config import Config

Message = dict[str, Any]
Table = dict[tuple[int, int], float]


def decode_binary(frame: bytes) -> Message:
    """Read a binary message as docs/reference/stream.md describes it."""
    magic, token_length, series, values, start = struct.unpack_from("<4sIIIq", frame)
    assert magic == b"CCS1"
    at = 24
    columns = []
    for dtype, count in (("<u4", series), ("<u4", series), ("<u4", values), ("<f4", values)):
        columns.append(np.frombuffer(frame, dtype, count, at))
        at += 4 * count
    indices, counts, offsets, numbers = columns
    ends = np.cumsum(counts)
    token, name = frame[at : at + token_length].decode(), frame[at + token_length :].decode()
    rows = [
        [int(index), (offsets[e - n : e].astype(int) + start).tolist(),
         [None if x != x else float(x) for x in numbers[e - n : e].tolist()]]
        for index, n, e in zip(indices, counts.tolist(), ends.tolist(), strict=True)
    ]  # fmt: skip
    message = {"id": name, "op": "data", "from": start, "values": rows}
    return message | ({"token": token} if token else {})


def messages_in(frames: bytes) -> list[str | bytes]:
    """Read the frames that a session sends."""
    connection = Connection(ConnectionType.CLIENT)
    connection.receive_data(frames)
    messages = []
    for event in connection.events():
        assert isinstance(event, Frame)
        assert event.message_finished
        messages.append(event.data if isinstance(event.data, str) else bytes(event.data))
    return messages


@define
class Told:
    """What a client knows of one subscription."""

    series: dict[int, Message] = field(factory=dict)
    table: Table = field(factory=dict)
    start: int = 0
    token: str = ""
    messages: list[Message] = field(factory=list)

    def take(self, message: Message) -> None:
        """Take a message as the documentation says."""
        self.messages.append(message)
        if message["op"] == "series":
            if message["reset"]:
                self.series.clear()
                self.table.clear()
            self.series |= {one["index"]: one for one in message["series"]}
        elif message["op"] == "data":
            self.start, self.token = message["from"], message.get("token", self.token)
            for index, times, values in message["values"]:
                assert index in self.series
                for time, value in zip(times, values, strict=True):
                    if value is None:
                        self.table.pop((index, time), None)
                    else:
                        self.table[index, time] = value
            self.table = {key: value for key, value in self.table.items() if key[1] >= self.start}


@define
class Client:
    """One connection."""

    socket: WebSocketConnection
    told: dict[str, Told] = field(factory=dict)

    async def send(self, **message: Any) -> None:
        await self.socket.send_message(json.dumps(message))

    async def subscribe(self, name: str, query: Any, **more: Any) -> None:
        self.told.setdefault(name, Told())
        await self.send(op="subscribe", id=name, query=query, **more)

    async def follow(self, name: str, wanted: Message, **more: Any) -> None:
        """Subscribe to a job."""
        self.told.setdefault(name, Told())
        await self.send(op="subscribe", id=name, **wanted, **more)

    async def receive(self) -> Message:
        """Return the next message, after its subscription has taken it."""
        frame = await self.socket.get_message()
        message = json.loads(frame) if isinstance(frame, str) else decode_binary(frame)
        if message.get("id") in self.told:
            self.told[message["id"]].take(message)
        return message

    async def until(self, op: str, **wanted: Any) -> Message:
        """Take messages up to one of a kind."""
        while True:
            message = await self.receive()
            if message["op"] == op and wanted.items() <= message.items():
                return message

    async def closed(self) -> tuple[int, str | None]:
        """Take messages until the server closes; return code and reason."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            reason = closed.reason
        return reason.code, reason.reason


@asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[Client]:
    """Open a stream."""
    # trio-websocket leaves its socket open where the server closes first
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(
            nursery, stream, f"127.0.0.1:{port}", "/api/stream", max_message_size=1 << 28, **options
        )
        async with socket:
            yield Client(socket)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def live(config: Config | None = None, **settings: Any) -> AsyncIterator[apiserver.Server]:
    """Run a server with all routes, and the task that hands out what is new."""
    apiserver.warm_up()
    with trio.fail_after(20):  # a message that never comes
        async with apiserver.running(config, **settings) as server, trio.open_nursery() as nursery:
            nursery.start_soon(server.services.hub.run)
            yield server
            nursery.cancel_scope.cancel()


async def answered(server: apiserver.Server, query: Any, start: int) -> dict[tuple[int, int], float]:
    """Ask /api/query for the same, from a time on, and return the answer as a table."""
    text = await server.query({**query, "from": start, "to": 2**59, "with-padding": False})
    rows = [row for part in json.loads(text)["results"] for row in part or [{}]]
    table = {}
    for index, row in enumerate(rows):
        for k, value in enumerate(row.get("data", ())):
            if value is not None:
                table[index, row["from"] + k * row["resolution"]] = value
    return table


async def quiet(client: Client, holds: Callable[[], bool]) -> None:
    """Take messages until something holds."""
    with trio.fail_after(20):
        while not holds():
            await client.receive()
