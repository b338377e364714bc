"""A NATS message as it lies in the segment it was received in, and its headers.

Owns the values that travel from the protocol to the store. Invariant: payloads are never copied.
A message is an offset into its segment, and a memoryview of the segment keeps it alive; as long
as such a view exists, the bytearray behind it cannot be resized, and that is how its owner sees
that it must not be written again.

`Messages`, what one wake-up yields, is three columns and no object for each message: 25 bytes
each beside the payload, where objects would take 150, more than a tiny message itself.
"""

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from attrs import define, field, frozen

from ccstore.errors import ProtocolError

__all__ = [
    "Envelope",
    "Headers",
    "Message",
    "Messages",
    "Subscription",
    "bytearray_of",
    "decode_headers",
    "encode_headers",
]

HEADER_VERSION = "NATS/1.0"
HEADER_NAME = re.compile(r"[!-9;-~]+")


@frozen
class Subscription:
    """What we ask the server for, and what the answer means to us."""

    subject: str
    """May hold the wildcards ``*`` (one token) and ``>`` (the rest)."""
    default_cluster: str = ""
    """The cluster of lines that name none; the protocol carries it along and never looks at it."""
    queue: str = ""
    """Name of a queue group, of which one member gets each message; empty for everybody."""


@frozen
class Envelope:
    """What the control line of a message says; shared by all messages with the same line."""

    subject: str
    subscription: Subscription
    reply: str
    header_bytes: int
    total_bytes: int
    """Headers and payload, without the CRLF that follows."""


@frozen
class Headers:
    """The header block of a message."""

    status: int = 0
    """The server's own answers carry one, such as 503 for no responders; 0 for none."""
    description: str = ""
    fields: Mapping[str, tuple[str, ...]] = field(factory=dict)
    """Values by name, as spelled by the sender, in the order received."""


@define(eq=False)
class Message:
    """One message, still where it was received."""

    envelope: Envelope
    segment: memoryview
    """The whole segment; at least 64 bytes of it lie behind `stop`."""
    start: int
    """Where the payload starts; the header block lies before it."""
    stop: int

    @property
    def subject(self) -> str:
        """The subject it was published to, without wildcards."""
        return self.envelope.subject

    @property
    def subscription(self) -> Subscription:
        """The subscription that brought it here."""
        return self.envelope.subscription

    @property
    def reply(self) -> str:
        """Where an answer or an acknowledgement is expected; empty for nowhere."""
        return self.envelope.reply

    @property
    def payload(self) -> memoryview:
        """The payload, not copied; it keeps the whole segment alive."""
        return self.segment[self.start : self.stop]

    @property
    def headers(self) -> Headers:
        """Decode the header block; empty if there is none. Raises ProtocolError."""
        if not self.envelope.header_bytes:
            return Headers()
        return decode_headers(bytes(self.segment[self.start - self.envelope.header_bytes : self.start]))


class Messages(Sequence[Message]):
    """Messages of one segment in arrival order, as columns; a `Message` is made when asked for.

    `starts` and `stops` bound the payloads in `segment`: int64, which `numpy.frombuffer` reads
    without a copy, as it does the segment.
    """

    __slots__ = ("envelopes", "segment", "starts", "stops")

    def __init__(self, segment: memoryview) -> None:
        self.segment = segment
        self.envelopes: list[Envelope] = []
        self.starts: array[int] = array("q")
        self.stops: array[int] = array("q")

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Message(self.envelopes[index], self.segment, self.starts[index], self.stops[index])

    def __iter__(self) -> Iterator[Message]:
        segment = self.segment
        for envelope, start, stop in zip(self.envelopes, self.starts, self.stops, strict=True):
            yield Message(envelope, segment, start, stop)

    def __len__(self) -> int:
        return len(self.envelopes)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all payloads together."""
        return sum(self.stops) - sum(self.starts)

    def count_lines(self) -> int:
        """Return how many newlines the payloads hold."""
        count = bytearray_of(self.segment).count
        return sum(count(b"\n", start, stop) for start, stop in zip(self.starts, self.stops, strict=True))

    def extend(self, later: "Messages") -> None:
        """Append `later`, which must be of the same segment."""
        assert later.segment is self.segment
        self.envelopes += later.envelopes
        self.starts += later.starts
        self.stops += later.stops


def encode_headers(fields: Mapping[str, str]) -> bytes:
    """Return a header block, with the empty line that ends it. Raises ProtocolError."""
    lines = [HEADER_VERSION]
    for name, value in fields.items():
        if not HEADER_NAME.fullmatch(name) or "\r" in value or "\n" in value:
            raise ProtocolError(f"nats: header is malformed (got {name!r}: {value!r})")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def decode_headers(block: bytes) -> Headers:
    """Read a header block. Raises ProtocolError."""
    try:
        first, *lines = block.decode().removesuffix("\r\n\r\n").split("\r\n")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"nats: headers are not UTF-8 (got {block[:80]!r})") from error
    if not first.startswith(HEADER_VERSION):
        raise ProtocolError(f"nats: unknown header version (got {first[:80]!r}, wanted {HEADER_VERSION})")
    status, _, description = first.removeprefix(HEADER_VERSION).strip().partition(" ")
    if status and not (status.isascii() and status.isdigit()):
        raise ProtocolError(f"nats: header status is not a number (got {first[:80]!r})")
    fields: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolError(f"nats: header without a colon (got {line[:80]!r})")
        fields[name] = (*fields.get(name, ()), value.strip())
    return Headers(int(status or 0), description, fields)


def bytearray_of(segment: memoryview) -> bytearray:
    """Return the bytearray behind a segment, for the methods that a memoryview lacks."""
    buffer = segment.obj
    assert isinstance(buffer, bytearray)
    return buffer
