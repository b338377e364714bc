"""What a configuration key is: its name in the file, the kind of its value, and who knows it.

This module owns the kinds of values (text, integer, duration, address ...), each with a check and
a sentence saying what was wanted. It reads no file and knows no key by name. Invariant: a kind
accepts exactly the JSON type it names (``true`` is no integer, ``60.0`` is none either, ``5`` is
no text), and what `write` gives, `read` takes back unchanged.

The kinds stand in the metadata of attrs fields, so that one declaration in `sections` serves the
reading, the printing, the masking of secrets, the notes on the reference store and the test of
the documentation. A general converter would do the first of these five.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs
from attrs import frozen

from ccstore.config.durations import format_duration, parse_duration
from ccstore.wire.nats_auth import parse_addresses

__all__ = [
    "ADDRESS",
    "AGGREGATION",
    "BOOLEAN",
    "CLIENT_ADDRESS",
    "CLUSTER",
    "DURATION",
    "ED25519_KEY",
    "HTTP_URL",
    "METRIC_NAME",
    "NATS_SERVERS",
    "PATH",
    "POSITIVE_DURATION",
    "SUBJECT",
    "TEXT",
    "Key",
    "Kind",
    "ListOf",
    "Section",
    "Value",
    "choice",
    "hide",
    "hide_userinfo",
    "integer",
    "is_loopback",
    "key",
    "key_of",
    "positive_or",
    "section",
    "split_address",
]

Origin = Literal["store", "backend", "ccstore"]


class WrongTypeError(ValueError):
    """A value of another JSON type than the wanted one."""


def _same(value: Any) -> Any:
    return value


@frozen
class Value:
    """A kind of value that is not made of others."""

    wanted: str
    """What an operator should have written, as the end of ``(got ..., wanted ...)``."""
    read: Callable[[Any], Any]
    """JSON value to our value; raises ValueError with what is wrong, or ConfigError if that tells all."""
    write: Callable[[Any], Any] = _same
    """The way back, for printing."""
    takes_null: bool = False
    """Whether ``null`` is a value; for every other kind it is the same as an absent key."""
    schema: Mapping[str, Any] = MappingProxyType({"type": "string"})
    """What can be said of the value in JSON Schema: it takes whatever we take, and may take more."""


@frozen
class ListOf:
    """A JSON list, kept as a tuple."""

    item: "Kind"


@frozen
class Section:
    """A JSON object, kept as an instance of `cls`."""

    cls: type[attrs.AttrsInstance]
    shared: bool = False
    """Whether keys that we do not know are somebody else's, and not mistakes."""


Kind = Value | ListOf | Section


@frozen
class Key:
    """One key of the configuration file."""

    name: str
    """As in the file: in kebab-case."""
    kind: Kind
    required: bool = False
    origin: Origin = "store"
    """The smallest program that knows the key: the reference store, its backend program, or only we."""
    mask: Callable[[str], str] | None = None
    """For secrets: the text that may be shown instead of the value."""


def key(
    default: Any,
    kind: Kind,
    *,
    name: str | None = None,
    required: bool = False,
    origin: Origin = "store",
    mask: Callable[[str], str] | None = None,
) -> Any:
    """Declare an attrs field that is a key of the file; without `name` it is the field's in kebab-case."""
    return attrs.field(
        default=default,
        metadata={"name": name, "key": Key("", kind, required, origin, mask)},
    )


def section(
    cls: type[attrs.AttrsInstance],
    *,
    optional: bool = False,
    name: str | None = None,
    origin: Origin = "store",
) -> Any:
    """Declare a field that is an object of its own; if `optional`, absent means None, else all defaults."""
    return key(None if optional else attrs.Factory(cls), Section(cls), name=name, origin=origin)


def key_of(field: "attrs.Attribute[Any]") -> Key:
    """Return what was declared for `field` by `key` or `section`."""
    declared: Key = field.metadata["key"]
    return attrs.evolve(declared, name=field.metadata["name"] or field.name.replace("_", "-"))


def hide(secret: str) -> str:
    """Mask a password or token, but show whether there is one."""
    return "***" if secret else ""


def hide_userinfo(addresses: str) -> str:
    """Mask the password, or the token, in each of a comma separated list of addresses."""
    return ",".join(_hide_userinfo(address) for address in addresses.split(","))


def _hide_userinfo(address: str) -> str:
    head, at, host = address.rpartition("@")
    scheme, separator, userinfo = head.rpartition("://")
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}{separator}{user if colon else ''}{colon}***@{host}" if at else address


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongTypeError("not a string")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongTypeError("neither true nor false")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise WrongTypeError("not an integer")
    return value


def _path(value: Any) -> str:
    if not _text(value):
        raise ValueError("empty")
    return _text(value)


TEXT = Value("a string", _text)
PATH = Value("a path", _path, schema={"type": "string", "minLength": 1})
BOOLEAN = Value("true or false", _boolean, schema={"type": "boolean"})


def integer(at_least: int | None = None, *, unit: str = "", scale: int = 1) -> Value:
    """Return the kind of integers; a file counts in `unit`, we in units `scale` times as small."""

    def read(value: Any) -> int:
        if at_least is not None and _integer(value) < at_least:
            raise ValueError("too small")
        return _integer(value) * scale

    wanted = "an integer" + (f" in {unit}" if unit else "")
    if at_least is not None:
        wanted += f", at least {at_least}"
    schema = {"type": "integer"} | ({} if at_least is None else {"minimum": at_least})
    return Value(wanted, read, lambda value: int(value // scale), schema=schema)


def positive_or(default: int, *, unit: str = "", scale: int = 1) -> Value:
    """Return the kind of integers where zero and less stand for `default`; see `integer`."""

    def read(value: Any) -> int:
        return (_integer(value) if _integer(value) > 0 else default) * scale

    wanted = "an integer" + (f" in {unit}" if unit else "")
    return Value(wanted, read, lambda value: int(value // scale), schema={"type": "integer"})


def choice(*names: str) -> Value:
    """Return the kind of texts that are one of `names`."""

    def read(value: Any) -> str:
        if _text(value) not in names:
            raise ValueError("unknown value")
        return _text(value)

    *others, last = [f'"{name}"' for name in names]
    return Value(f"{', '.join(others)} or {last}" if others else last, read, schema={"enum": list(names)})


def _duration(value: Any) -> float:
    return parse_duration(_text(value))


def _positive_duration(value: Any) -> float:
    if _duration(value) <= 0:
        raise ValueError("too short")
    return _duration(value)


_DURATION_SCHEMA = {
    "type": "string",
    "pattern": r"^[+-]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)$",
}
DURATION = Value(
    'a duration such as "48h", "1h30m" or "90s"', _duration, format_duration, schema=_DURATION_SCHEMA
)
POSITIVE_DURATION = Value(
    f"{DURATION.wanted}, longer than 0s",
    _positive_duration,
    format_duration,
    schema=_DURATION_SCHEMA,
)


def _aggregation(value: Any) -> str:
    return "" if value is None else _text(value)


AGGREGATION = Value(
    '"sum", "avg" or null',
    _aggregation,
    lambda text: text or None,
    takes_null=True,
    schema={"type": ["string", "null"]},
)


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port`` into host and port; an IPv6 host stands in brackets, no host means all.

    Raises ValueError if `address` is not of this form or the port is not in 0 to 65535.
    """
    match = re.fullmatch(
        r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>[0-9]{1,5})", address
    )
    if match is None or int(match["port"]) > 65535 or (match["v6"] and not _is_ip_address(match["v6"])):
        raise ValueError("not an address to listen on")
    return match["v6"] or match["host"], int(match["port"])


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach a server that listens on `address`."""
    host, _ = split_address(address)
    return host == "localhost" or (_is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def _address(value: Any) -> str:
    split_address(_text(value))
    return _text(value)


def _http_url(value: Any) -> str:
    parts = urlsplit(_text(value))
    if value and (parts.scheme not in ("http", "https") or not parts.hostname or not _has_valid_port(value)):
        raise ValueError("not a URL of a web server")
    return _text(value)


def _has_valid_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _nats_servers(value: Any) -> str:
    if _text(value):
        parse_addresses(value)
    return _text(value)


def _subject(value: Any) -> str:
    tokens = _text(value).split(".")
    if not all(tokens) or re.search(r"\s", _text(value)) or ">" in tokens[:-1]:
        raise ValueError("not a NATS subject")
    return _text(value)


def _cluster(value: Any) -> str:
    text = _text(value)
    if len(text.encode()) > 255 or text == "." or ".." in text or re.search(r"[/\\\0]", text):
        raise ValueError("not a cluster name")
    return text


def _metric_name(value: Any) -> str:
    if not 0 < len(_text(value).encode(errors="replace")) <= 255 or not value.isprintable():
        raise ValueError("not a name for a metric")
    return _text(value)


def _client_address(value: Any) -> str:
    if _text(value) != "*" and not _is_ip_address(value):
        raise ValueError("not an IP address")
    return _text(value)


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _ed25519_key(value: Any) -> bytes:
    try:
        raw = base64.b64decode(_text(value).strip(), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if len(raw) not in (0, 32):
        raise ValueError(f"a key of {len(raw)} bytes")
    return raw


ADDRESS = Value(
    'host:port such as "0.0.0.0:8082", "[::1]:8082" or ":8082" for all interfaces',
    _address,
    schema={"type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):[0-9]{1,5}$"},
)
HTTP_URL = Value(
    '"http://host:port" or "https://host:port"',
    _http_url,
    schema={"type": "string", "pattern": "^([Hh][Tt][Tt][Pp][Ss]?://.+)?$"},
)
NATS_SERVERS = Value('"nats://host:4222" or "tls://host:4222", several separated by commas', _nats_servers)
SUBJECT = Value(
    'a NATS subject such as "hpc.metrics" or "hpc.>"',
    _subject,
    schema={"type": "string", "pattern": r"^[^\s.]+(\.[^\s.]+)*$"},
)
CLUSTER = Value(
    "1 to 255 bytes without slash, backslash and double dot",
    _cluster,
    schema={"type": "string", "maxLength": 255, "pattern": r"^[^/\\\u0000]*$"},
)
METRIC_NAME = Value(
    "1 to 255 printable bytes", _metric_name, schema={"type": "string", "minLength": 1, "maxLength": 255}
)
CLIENT_ADDRESS = Value('an IP address or "*" for all', _client_address)
ED25519_KEY = Value(
    "the base64 of an Ed25519 public key of 32 bytes",
    _ed25519_key,
    lambda raw: base64.b64encode(raw).decode(),
    schema={"type": "string", "contentEncoding": "base64"},
)
