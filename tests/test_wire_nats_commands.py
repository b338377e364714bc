"""The commands of the protocol: what they look like, and what they refuse to look like."""

import base64
import json
from typing import Any

import pytest

from ccstore.errors import ProtocolError
from ccstore.wire.nats import (
    Connection,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
    is_subject,
)
from ccstore.wire.nats_auth import Address, Credentials
from ccstore.wire.nats_message import Subscription

SUBSCRIPTIONS = [Subscription("a.>", "fritz"), Subscription("b", "alex", "group")]


def greeted(info: bytes = b'INFO {"headers":true}\r\n') -> Connection:
    """Return a connection after INFO."""
    connection = Connection()
    connection.receive(memoryview(bytearray(info)), 0, len(info))
    return connection


def test_connect_names_us_and_signs_in() -> None:
    """CONNECT holds the fields every server wants, and who we are."""
    connection = greeted()
    command = connection.connect(Credentials("u", "p"), Address("h"), name="ccstore", version="1")
    assert command.startswith(b"CONNECT ")
    assert command.endswith(b"\r\n")
    fields = json.loads(command[8:])
    assert {
        "user": "u",
        "pass": "p",
        "name": "ccstore",
        "version": "1",
        "headers": True,
    }.items() <= fields.items()
    assert tuple(fields[key] for key in ("verbose", "pedantic", "protocol", "no_responders")) == (
        False,
        False,
        1,
        True,
    )


def test_connect_signs_the_nonce() -> None:
    """With a key, CONNECT holds the signature of the server's nonce."""
    connection = greeted(b'INFO {"nonce":"abc"}\r\n')
    command = connection.connect(Credentials(seed=bytes(32)), Address("h"), name="n", version="1")
    signature = json.loads(command[8:])["sig"]
    assert len(base64.urlsafe_b64decode(signature + "==")) == 64


def test_subscriptions_are_numbered_in_order() -> None:
    """SUB names subject, queue group and number; UNSUB all the numbers."""
    connection = Connection()
    assert connection.subscribe(SUBSCRIPTIONS[0]) == b"SUB a.> 1\r\n"
    assert connection.subscribe(SUBSCRIPTIONS[1]) == b"SUB b group 2\r\n"
    assert connection.subscribe(SUBSCRIPTIONS[0]) == b"SUB a.> 1\r\n"
    assert connection.unsubscribe_all() == b"UNSUB 1\r\nUNSUB 2\r\n"
    assert encode_unsubscribe(b"7") == b"UNSUB 7\r\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("a.b", 3, "", None), b"PUB a.b 3\r\n"),
        (("a.b", 0, "re.ply", None), b"PUB a.b re.ply 0\r\n"),
        (("a", 3, "", {"k": "v"}), b"HPUB a 18 21\r\nNATS/1.0\r\nk: v\r\n\r\n"),
        (("a", 3, "r", {"k": ""}), b"HPUB a r 17 20\r\nNATS/1.0\r\nk: \r\n\r\n"),
    ],
)
def test_publish(arguments: tuple[Any, ...], expected: bytes) -> None:
    """PUB and HPUB say how long what follows is."""
    subject, size, reply, headers = arguments
    assert expected == encode_publish(subject, size, reply=reply, headers=headers)


@pytest.mark.parametrize(
    ("subject", "reply", "headers"),
    [
        ("", "", None),
        ("a b", "", None),
        ("a..b", "", None),
        ("a.*", "", None),
        (">", "", None),
        ("a\r\nPUB b 0", "", None),
        ("a", "r s", None),
        ("a", "", {"k:": "v"}),
        ("a", "", {"": "v"}),
        ("a", "", {"k": "v\r\nPUB"}),
        ("a", "", {"k k": "v"}),
    ],
)
def test_publish_lets_nothing_break_the_protocol(
    subject: str, reply: str, headers: dict[str, str] | None
) -> None:
    """A subject or header that would be read as something else is refused."""
    with pytest.raises(ProtocolError):
        encode_publish(subject, 0, reply=reply, headers=headers)


@pytest.mark.parametrize(
    ("subject", "queue"), [("a b", ""), ("a.>.b", ""), ("", ""), ("a", "q q"), ("a.", "")]
)
def test_subscribe_lets_nothing_break_the_protocol(subject: str, queue: str) -> None:
    """A subject or queue group that would be read as something else is refused."""
    with pytest.raises(ProtocolError):
        encode_subscribe(b"1", subject, queue)


@pytest.mark.parametrize(
    ("text", "is_plain", "is_pattern"),
    [
        ("a", True, True),
        ("hpc-nats.fritz", True, True),
        ("a*b.c>", True, True),
        ("*", False, True),
        ("a.*.c", False, True),
        (">", False, True),
        ("a.>", False, True),
        (">.a", False, False),
        (".a", False, False),
        ("a\n", False, False),
    ],
)
def test_subjects(text: str, is_plain: bool, is_pattern: bool) -> None:
    """Wildcards are whole tokens, and the last one alone may stand for the rest."""
    assert (is_plain, is_pattern) == (is_subject(text), is_subject(text, wildcards=True))
