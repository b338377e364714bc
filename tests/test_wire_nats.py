"""The protocol as a state machine: any stream, cut anywhere, against a plain reference reader."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstore.errors import ProtocolError
from ccstore.wire.nats import (
    MAX_LINE,
    Connection,
    Info,
    Ok,
    Ping,
    Pong,
    Refusal,
)
from ccstore.wire.nats_message import Subscription

INFO = b'INFO {"server_id":"A","max_payload":1048576,"headers":true} \r\n'
SUBSCRIPTIONS = [Subscription("a.>", "fritz"), Subscription("b", "alex", "group"), Subscription("*")]
MAX_PAYLOAD = 4096
SLACK = 64

Item = tuple[Any, ...]


def connected(max_payload: int = MAX_PAYLOAD, pings: int = 0) -> Connection:
    """Return a connection after INFO, with three subscriptions and some pings under way."""
    connection = Connection(max_payload=max_payload)
    for subscription in SUBSCRIPTIONS:
        connection.subscribe(subscription)
    for _ in range(pings):
        connection.ping()
    feed(connection, [INFO])
    return connection


def feed(connection: Connection, pieces: list[bytes], segment_bytes: int = 1 << 16) -> list[Item]:
    """Show `pieces` one by one, as a socket would, and return all that comes of it."""
    items: list[Item] = []
    segment, start, stop = memoryview(bytearray(segment_bytes + SLACK)), 0, 0
    for piece in pieces:
        if stop + len(piece) > segment_bytes:
            rest = bytes(segment[start:stop])
            segment_bytes = max(segment_bytes, len(rest) + len(piece))
            segment = memoryview(bytearray(segment_bytes + SLACK))
            segment[: len(rest)] = rest
            start, stop = 0, len(rest)
        segment[stop : stop + len(piece)] = piece
        stop += len(piece)
        received = connection.receive(segment, start, stop)
        assert received.stop - start >= 0
        if received.wanted_bytes:
            assert stop - received.stop < received.wanted_bytes
        start = received.stop
        for message in received.messages:
            header = bytes(segment[message.start - message.envelope.header_bytes : message.start])
            items.append(
                (message.subject, message.subscription, message.reply, header, bytes(message.payload))
            )
        items += [(event,) for event in received.events if not isinstance(event, Info)]
    return items


def reference(stream: bytes) -> tuple[list[Item], bool]:
    """Read a stream the plain way: its items, and whether it breaks the protocol."""
    messages: list[Item] = []
    while b"\r\n" in stream:
        line, rest = stream.split(b"\r\n", 1)
        words = line.split()
        if line in (b"PING", b"+OK"):
            messages.append((Ping() if line == b"PING" else Ok(),))
        elif line.startswith(b"-ERR") and line[4:5] in (b"", b" "):
            messages.append((Refusal(line[5:].decode(errors="replace").strip().strip("'")),))
        elif line.startswith((b"MSG ", b"HMSG ")):
            has_header = line.startswith(b"H")
            sizes = words[-2:] if has_header else words[-1:]
            names = words[1 : len(words) - len(sizes)]
            if not 2 <= len(names) <= 3 or not all(s.isdigit() and len(s) <= 12 for s in sizes):
                return messages, True
            if names[1] not in (b"1", b"2", b"3") or int(sizes[-1]) > MAX_PAYLOAD:
                return messages, True
            header, total = (int(sizes[0]) if has_header else 0), int(sizes[-1])
            if header > total:
                return messages, True
            try:
                subject, reply = names[0].decode(), names[2].decode() if len(names) == 3 else ""
            except UnicodeDecodeError:
                return messages, True
            if len(rest) < total + 2:
                return messages, False
            if rest[total : total + 2] != b"\r\n":
                return messages, True
            subscription = SUBSCRIPTIONS[int(names[1]) - 1]
            messages.append((subject, subscription, reply, rest[:header], rest[header:total]))
            rest = rest[total + 2 :]
        else:
            return messages, True
        stream = rest
    return messages, False


def split_order(items: list[Item]) -> tuple[list[Item], list[Item]]:
    return [i for i in items if len(i) > 1], [i for i in items if len(i) == 1]


tokens = st.text("abcé-_*0", min_size=1, max_size=4)
subjects = st.lists(tokens, min_size=1, max_size=3).map(".".join)
payloads = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\r\n", b"PING\r\n", b"MSG a 1 3\r\nabc\r\n", b"\r", b"x" * MAX_PAYLOAD]),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    subject, number = draw(subjects).encode(), draw(st.sampled_from([b"1", b"2", b"3"]))
    reply = draw(st.one_of(st.just(b""), subjects.map(lambda s: s.encode() + b" ")))
    payload = draw(payloads)
    if draw(st.booleans()) or len(payload) > MAX_PAYLOAD - 100:
        return b"MSG %b %b %b%d\r\n%b\r\n" % (subject, number, reply, len(payload), payload)
    header = b"NATS/1.0\r\nkey: %b\r\n\r\n" % draw(st.sampled_from([b"", b"value"]))
    total = len(header) + len(payload)
    return b"HMSG %b %b %b%d %d\r\n%b%b\r\n" % (subject, number, reply, len(header), total, header, payload)


commands = st.sampled_from([b"PING\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b"-ERR\r\n"])
streams = st.lists(st.one_of(messages(), messages(), commands), max_size=20).map(b"".join)


def cut(stream: bytes, places: list[float]) -> list[bytes]:
    cuts = [0, *sorted(int(place * len(stream)) for place in places), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(cuts)]


cuts = st.lists(st.floats(0, 1), max_size=30)


@given(streams, cuts)
def test_any_stream_is_read_the_same_however_it_is_cut(stream: bytes, places: list[float]) -> None:
    """Messages and events come out complete and in order, whatever the reads were."""
    expected, is_broken = reference(stream)
    assert not is_broken
    actual = feed(connected(), cut(stream, places), segment_bytes=8192)
    assert split_order(expected) == split_order(actual)


@given(streams, st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), min_size=1, max_size=3), cuts)
def test_a_damaged_stream_is_refused_where_the_reference_refuses_it(
    stream: bytes, damages: list[tuple[float, bytes]], places: list[float]
) -> None:
    """Bytes overwritten anywhere yield the same messages, or ProtocolError after a part of them."""
    damaged = bytearray(stream)
    for place, patch in damages:
        at = int(place * len(damaged))
        damaged[at : at + len(patch)] = patch
    if b"INFO" in damaged or b"PONG" in damaged:
        return
    expected, is_broken = reference(bytes(damaged))
    connection = connected()
    pieces, actual = cut(bytes(damaged), places), list[Item]()
    try:
        actual = feed(connection, pieces, segment_bytes=8192)
    except ProtocolError:
        assert is_broken
    else:
        assert not is_broken
        assert split_order(expected) == split_order(actual)


def test_byte_by_byte() -> None:
    """A stream that arrives in single bytes is read like any other."""
    stream = b"MSG a.b 1 5\r\nhello\r\nPING\r\nHMSG b 2 r.1 12 15\r\nNATS/1.0\r\n\r\nabc\r\n"
    actual = feed(connected(), [bytes([byte]) for byte in stream])
    expected = [
        ("a.b", SUBSCRIPTIONS[0], "", b"", b"hello"),
        (Ping(),),
        ("b", SUBSCRIPTIONS[1], "r.1", b"NATS/1.0\r\n\r\n", b"abc"),
    ]
    assert expected == actual


def test_payloads_are_not_copied_and_have_their_columns() -> None:
    """The columns of `Messages` bound the payloads in the segment, also for numpy."""
    stream = b"MSG a.b 1 5\r\nhello\r\nMSG b 2 2\r\nyo\r\n"
    buffer = bytearray(stream) + bytearray(SLACK)
    received = connected().receive(memoryview(buffer), 0, len(stream))
    starts = np.frombuffer(received.messages.starts, np.int64)
    stops = np.frombuffer(received.messages.stops, np.int64)
    assert starts.tolist() == [13, 31]
    assert stops.tolist() == [18, 33]
    assert received.messages.payload_bytes == 7
    assert np.frombuffer(received.messages.segment, np.uint8)[13:18].tobytes() == b"hello"
    buffer[13:18] = b"HELLO"
    assert bytes(received.messages[0].payload) == b"HELLO"
    assert [bytes(message.payload) for message in received.messages[0:2]] == [b"HELLO", b"yo"]


def test_lines_are_counted_in_payloads_alone() -> None:
    """Newlines of the protocol itself are not lines."""
    stream = b"MSG b 2 4\r\na\nb\n\r\nMSG b 2 1\r\nc\r\nMSG b 2 1\r\n\n\r\n"
    segment = memoryview(bytearray(stream) + bytearray(SLACK))
    assert connected().receive(segment, 0, len(stream)).messages.count_lines() == 3


def test_a_wanted_message_says_how_long_it_is() -> None:
    """The caller learns the size of an incomplete message as soon as its control line is there."""
    stream = b"PING\r\nMSG b 2 1000\r\nabc"
    received = connected().receive(memoryview(bytearray(stream)), 0, len(stream))
    assert (received.stop, received.wanted_bytes) == (6, 14 + 1000 + 2)


@pytest.mark.parametrize(
    "stream",
    [
        b"MSG a 9 1\r\nx\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 r s 1\r\nx\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 +1\r\nx\r\n",
        b"MSG a 1 1_0\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 %d\r\n" % (MAX_PAYLOAD + 1),
        b"MSG a 1 %b\r\n" % (b"9" * 5000),
        b"MSG \xff 1 1\r\nx\r\n",
        b"MSG a 1 3\r\nhello\r\n",
        b"HMSG a 1 5\r\nhello\r\n",
        b"HMSG a 1 6 5\r\nhello\r\n",
        b"PONG\r\n",
        b"HELLO\r\n",
        b"\r\n",
        b"INFO nonsense\r\n",
        b"INFO []\r\n",
        b'INFO {"max_payload":"much"}\r\n',
        b'INFO {"headers":1}\r\n',
        b"x" * (MAX_LINE + 1),
        b"MSG " + b"x" * (MAX_LINE + 1) + b" 1 1\r\nx\r\n",
    ],
)
def test_what_is_not_nats_is_refused(stream: bytes) -> None:
    """Whatever breaks the protocol raises ProtocolError, and nothing else."""
    connection = connected()
    with pytest.raises(ProtocolError):
        feed(connection, [stream], segment_bytes=1 << 18)


@pytest.mark.parametrize("stream", [b"PING\r\n", b"MSG a 1 1\r\nx\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_server_starts_with_info(stream: bytes) -> None:
    """Anything else before INFO is no NATS server."""
    with pytest.raises(ProtocolError, match="INFO"):
        feed(Connection(), [stream])


def test_a_refusal_may_come_before_info() -> None:
    """A server that is full says so instead of greeting."""
    assert [(Refusal("maximum connections exceeded"),)] == feed(
        Connection(), [b"-ERR 'maximum connections exceeded'\r\n"]
    )


def test_info_is_read_and_replaced() -> None:
    """The latest INFO counts; missing fields have their defaults, unknown ones are ignored."""
    connection = connected()
    info = {
        "server_id": "B",
        "server_name": "n2",
        "version": "2.15.1",
        "max_payload": 8,
        "headers": False,
        "tls_required": True,
        "nonce": "xyz",
        "connect_urls": ["10.0.0.1:4222", "10.0.0.2:4222", 7],
        "ldm": True,
        "new": 1,
    }
    feed(connection, [b"INFO " + json.dumps(info).encode() + b"\r\n"])
    expected = Info(
        "B", "n2", "2.15.1", 8, False, True, False, "xyz", ("10.0.0.1:4222", "10.0.0.2:4222"), True
    )
    assert expected == connection.info


def test_pings_are_counted_until_answered() -> None:
    """Each PONG answers the oldest PING."""
    connection = connected(pings=2)
    assert [(Pong(),)] == feed(connection, [b"PONG\r\n"])
    assert connection.unanswered_pings == 1


def test_a_control_line_is_forgotten_when_there_are_too_many() -> None:
    """More different control lines than are kept change nothing but speed."""
    stream = b"".join(b"MSG b.%d 2 0\r\n\r\n" % number for number in range(10_000))
    items = feed(connected(), [stream, stream], segment_bytes=1 << 20)
    assert [f"b.{number}" for number in range(10_000)] * 2 == [item[0] for item in items]
