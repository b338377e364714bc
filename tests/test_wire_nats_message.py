"""Header blocks, and messages as values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstore.errors import ProtocolError
from ccstore.wire.nats_message import (
    Envelope,
    Headers,
    Message,
    Subscription,
    decode_headers,
    encode_headers,
)

names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1)
values = st.text(st.characters(exclude_characters="\r\n", codec="utf-8")).map(str.strip)


@given(st.dictionaries(names, values, max_size=5))
def test_headers_survive_a_round_trip(fields: dict[str, str]) -> None:
    """What is encoded is decoded to the same fields."""
    expected = Headers(fields={name: (value,) for name, value in fields.items()})
    assert expected == decode_headers(encode_headers(fields))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"NATS/1.0\r\n\r\n", Headers()),
        (b"NATS/1.0 503\r\n\r\n", Headers(503)),
        (b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", Headers(100, "Idle Heartbeat")),
        (b"NATS/1.0\r\na:1\r\nA: 2\r\na: 3 \r\n\r\n", Headers(fields={"a": ("1", "3"), "A": ("2",)})),
        (b"NATS/1.0 409 Gone\r\nk:\r\n\r\n", Headers(409, "Gone", {"k": ("",)})),
    ],
)
def test_headers_as_servers_send_them(block: bytes, expected: Headers) -> None:
    """Status, description and repeated names are kept."""
    assert expected == decode_headers(block)


@pytest.mark.parametrize(
    "block",
    [b"", b"HTTP/1.1 200\r\n\r\n", b"NATS/1.0 x\r\n\r\n", b"NATS/1.0\r\nnocolon\r\n\r\n", b"\xff\r\n\r\n"],
)
def test_bad_headers_are_refused(block: bytes) -> None:
    """A block that is none raises ProtocolError."""
    with pytest.raises(ProtocolError):
        decode_headers(block)


def test_a_message_looks_into_its_segment() -> None:
    """Headers lie before the payload, and neither is copied."""
    block = encode_headers({"k": "v"})
    segment = memoryview(bytearray(b"..." + block + b"payload"))
    subscription = Subscription("a", "fritz", "q")
    envelope = Envelope("a", subscription, "r", len(block), len(block) + 7)
    message = Message(envelope, segment, 3 + len(block), len(segment))
    assert bytes(message.payload) == b"payload"
    assert message.headers.fields == {"k": ("v",)}
    assert ("a", "r", subscription) == (message.subject, message.reply, message.subscription)
    assert message.payload.obj is segment.obj
    assert Headers() == Message(Envelope("a", subscription, "", 0, 7), segment, 0, 7).headers
