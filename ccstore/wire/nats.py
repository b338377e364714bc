"""The NATS client protocol: bytes of a server <-> events and messages, commands -> bytes.

Owns the grammar and the state of one connection: what the server said of itself, which number
means which subscription, how many pings are unanswered. It touches no socket, clock or file;
whoever owns the socket reads into a segment and shows it to `Connection.receive`.

Invariant: decoding keeps no half state. It takes what is complete between two offsets and says
where it stopped, so how the stream was cut into reads cannot matter.

Written for speed in one place only, the loop of `Connection.receive`: control lines repeat, so
each is parsed once and then found by its bytes, and a message adds one row to the columns of
`Messages`: 0.5 us a message, where parsing each line and making an object of it takes 2.4 us.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from attrs import define, field, frozen

from ccstore.errors import ProtocolError
from ccstore.wire.nats_auth import Address, Credentials, sign_in
from ccstore.wire.nats_message import Envelope, Messages, Subscription, bytearray_of, encode_headers

__all__ = [
    "PING",
    "PONG",
    "Connection",
    "Event",
    "Info",
    "Ok",
    "Ping",
    "Pong",
    "Received",
    "Refusal",
    "encode_publish",
    "encode_subscribe",
    "encode_unsubscribe",
    "is_subject",
]

KIB = 1024
MIB = 1024 * KIB

MAX_LINE = 64 * KIB  # INFO names every server of a cluster; all other lines stay far below
MAX_PAYLOAD = 64 * MIB  # the most a nats-server can be configured to carry
MAX_KNOWN_LINES = 4096  # subjects times payload sizes in steady use; forgotten together beyond

PING = b"PING\r\n"
PONG = b"PONG\r\n"

CR, LF = 13, 10
MAX_SIZE_DIGITS = 12  # int() refuses thousands of digits with an error of its own
TOKENS = re.compile(r"[^\s.]+(?:\.[^\s.]+)*")


@frozen
class Info:
    """What a server says of itself, at first and whenever it changes."""

    server_id: str
    server_name: str
    version: str
    max_payload: int
    """The largest message it takes, headers included, in bytes."""
    headers: bool
    tls_required: bool
    tls_available: bool
    nonce: str
    """To be signed by whoever signs in with a key."""
    connect_urls: tuple[str, ...]
    """``host:port`` of the servers of its cluster; empty if it has none."""
    lame_duck: bool
    """It is about to stop and wants its clients to leave."""


@frozen
class Ping:
    """The server asks for a PONG."""


@frozen
class Pong:
    """Everything we sent before the oldest unanswered PING has been seen by the server."""


@frozen
class Ok:
    """An acknowledgement that we never ask for."""


@frozen
class Refusal:
    """The server's ``-ERR``; it closes the connection for most of them, without another word."""

    text: str


Event = Info | Ping | Pong | Ok | Refusal


@frozen
class Received:
    """What one look at a segment yielded."""

    messages: Messages
    events: Sequence[Event]
    stop: int
    """Where the first incomplete item starts."""
    wanted_bytes: int
    """How long that item is as a whole, if its control line is there; else 0."""


@define(eq=False)
class Connection:
    """The client's side of one connection; make a new one for each."""

    max_payload: int = MAX_PAYLOAD
    """A message that claims more than these bytes ends the connection."""
    info: Info | None = field(default=None, init=False)
    """The server's latest INFO; None before the first."""
    unanswered_pings: int = field(default=0, init=False)
    _subscriptions: dict[bytes, Subscription] = field(factory=dict, init=False)
    _known_lines: dict[bytes, Envelope] = field(factory=dict, init=False)

    def receive(self, segment: memoryview, start: int, stop: int) -> Received:
        """Take what is complete in ``segment[start:stop]``; `segment` is a view of a bytearray.

        Messages and events are given apart. That loses their order, which carries no meaning but
        for PONG: messages sent before it are in the same or an earlier answer. Raises
        ProtocolError when the bytes cannot be NATS; the connection is then of no more use.
        """
        buffer = bytearray_of(segment)
        find, known = buffer.find, self._known_lines.get
        messages, events = Messages(segment), list[Event]()
        add, add_start, add_stop = messages.envelopes.append, messages.starts.append, messages.stops.append
        while (line_end := find(b"\r\n", start, stop)) >= 0:
            line = bytes(segment[start:line_end])
            envelope = known(line) or self._decode_line(line, events)
            if envelope is None:
                start = line_end + 2
                continue
            end = line_end + 2 + envelope.total_bytes
            if end + 2 > stop:
                return Received(messages, events, start, end + 2 - start)
            if buffer[end] != CR or buffer[end + 1] != LF:
                raise ProtocolError(f"nats: message is longer than announced (got {line[:80]!r})")
            add(envelope)
            add_start(line_end + 2 + envelope.header_bytes)
            add_stop(end)
            start = end + 2
        if stop - start > MAX_LINE:
            raise ProtocolError(f"nats: control line is too long (got over {MAX_LINE} bytes)")
        return Received(messages, events, start, 0)

    def connect(self, credentials: Credentials, address: Address, *, name: str, version: str) -> bytes:
        """Return the CONNECT that answers the server's INFO."""
        assert self.info is not None
        fields: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "protocol": 1,  # the server may send INFO again: new servers, lame duck
            "headers": True,
            "no_responders": self.info.headers,
            "lang": "python",
            "name": name,
            "version": version,
        }
        return b"CONNECT %b\r\n" % orjson.dumps(fields | sign_in(credentials, address, self.info.nonce))

    def subscribe(self, subscription: Subscription) -> bytes:
        """Return the SUB of a subscription, with the same number as before for one that was refused."""
        number = next((n for n, known in self._subscriptions.items() if known == subscription), b"")
        if not number:
            number = b"%d" % (len(self._subscriptions) + 1)
            self._subscriptions[number] = subscription
        return encode_subscribe(number, subscription.subject, subscription.queue)

    def unsubscribe_all(self) -> bytes:
        """Return an UNSUB for every subscription; what is under way still arrives, until a PONG."""
        return b"".join(encode_unsubscribe(number) for number in self._subscriptions)

    def ping(self) -> bytes:
        """Return a PING and expect its PONG."""
        self.unanswered_pings += 1
        return PING

    def _decode_line(self, line: bytes, events: list[Event]) -> Envelope | None:
        """Decode a control line seen for the first time: an envelope, or one more event."""
        if len(line) > MAX_LINE:
            raise ProtocolError(f"nats: control line is too long (got {len(line)} bytes)")
        verb, _, rest = line.partition(b" ")
        if verb == b"INFO":
            self.info = _decode_info(rest)
            events.append(self.info)
        elif self.info is None and verb != b"-ERR":
            raise ProtocolError(f"nats: server does not start with INFO (got {line[:80]!r})")
        elif verb in (b"MSG", b"HMSG"):
            return self._decode_envelope(line)
        elif line == b"PING":
            events.append(Ping())
        elif line == b"PONG":
            if not self.unanswered_pings:
                raise ProtocolError("nats: PONG without a PING")
            self.unanswered_pings -= 1
            events.append(Pong())
        elif line == b"+OK":
            events.append(Ok())
        elif verb == b"-ERR":
            events.append(Refusal(rest.decode(errors="replace").strip().strip("'")))
        else:
            raise ProtocolError(f"nats: unknown control line (got {line[:80]!r})")
        return None

    def _decode_envelope(self, line: bytes) -> Envelope:
        """``MSG subject number [reply] total`` or ``HMSG subject number [reply] header total``."""
        verb, *words = line.split()
        sizes = 1 if verb == b"MSG" else 2
        if not 2 + sizes <= len(words) <= 3 + sizes or not all(map(_is_size, words[-sizes:])):
            raise ProtocolError(f"nats: malformed {verb.decode()} (got {line[:80]!r})")
        total = int(words[-1])
        header = int(words[-2]) if sizes == 2 else 0
        if not header <= total <= self.max_payload:
            raise ProtocolError(
                f"nats: message size is out of bounds (got {line[-80:]!r}, wanted at most {self.max_payload})"
            )
        subscription = self._subscriptions.get(words[1])
        if subscription is None:
            raise ProtocolError(f"nats: message of a subscription never made (got {line[:80]!r})")
        has_reply = len(words) == 3 + sizes
        try:
            subject, reply = words[0].decode(), words[2].decode() if has_reply else ""
        except UnicodeDecodeError as error:
            raise ProtocolError(f"nats: subject is not UTF-8 (got {line[:80]!r})") from error
        envelope = Envelope(subject, subscription, reply, header, total)
        if not has_reply:  # a reply subject is used once, it would only push out the others
            if len(self._known_lines) >= MAX_KNOWN_LINES:
                self._known_lines.clear()
            self._known_lines[line] = envelope
        return envelope


def _is_size(word: bytes) -> bool:
    return word.isdigit() and len(word) <= MAX_SIZE_DIGITS


@lru_cache(maxsize=1024)  # publishers use the same few again and again
def is_subject(text: str, *, wildcards: bool = False) -> bool:
    """Tell whether `text` can be published to or, with `wildcards`, subscribed to."""
    if not TOKENS.fullmatch(text):
        return False
    tokens = text.split(".")
    return ">" not in tokens[:-1] if wildcards else not {"*", ">"}.intersection(tokens)


def encode_subscribe(number: bytes, subject: str, queue: str = "") -> bytes:
    """Return a SUB; `number` names the subscription in the messages that come of it."""
    if not is_subject(subject, wildcards=True) or (queue and not is_subject(queue)):
        raise ProtocolError(f"nats: subject or queue group is malformed (got {subject!r}, {queue!r})")
    words = f"{subject} {queue}" if queue else subject
    return b"SUB %b %b\r\n" % (words.encode(), number)


def encode_unsubscribe(number: bytes) -> bytes:
    """Return an UNSUB."""
    return b"UNSUB %b\r\n" % number


def encode_publish(
    subject: str, payload_bytes: int, *, reply: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return what goes before the payload of a PUB or HPUB; a CRLF goes after it.

    Raises ProtocolError if a subject or a header would break the protocol.
    """
    if not is_subject(subject) or (reply and not is_subject(reply)):
        raise ProtocolError(f"nats: subject is malformed (got {subject!r}, reply {reply!r})")
    words = f"{subject} {reply}" if reply else subject
    if not headers:
        return f"PUB {words} {payload_bytes}\r\n".encode()
    block = encode_headers(headers)
    return f"HPUB {words} {len(block)} {len(block) + payload_bytes}\r\n".encode() + block


def _decode_info(text: bytes) -> Info:
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"nats: INFO is not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ProtocolError("nats: INFO is not a JSON object")

    def get(name: str, default: Any) -> Any:
        value = raw.get(name)
        if value is None:
            return default
        if type(value) is not type(default):
            raise ProtocolError(f"nats: INFO has a wrong type (got {name}={value!r})")
        return value

    return Info(
        server_id=get("server_id", ""),
        server_name=get("server_name", ""),
        version=get("version", ""),
        max_payload=get("max_payload", MIB),
        headers=get("headers", False),
        tls_required=get("tls_required", False),
        tls_available=get("tls_available", False),
        nonce=get("nonce", ""),
        connect_urls=tuple(url for url in get("connect_urls", []) if isinstance(url, str)),
        lame_duck=get("ldm", False),
    )
