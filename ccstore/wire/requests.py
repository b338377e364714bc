"""The smaller requests and answers of the API as JSON: free, debug, healthcheck.

Long answers are written in pieces, one for each thing that they tell of. It knows names and values
of the model, not the store that they come from.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import orjson

from ccstore.errors import ProtocolError
from ccstore.model import HealthRequest, NodeHealth
from ccstore.wire.jsonvalue import decode_value, structure

__all__ = ["Level", "decode_health", "decode_selectors", "encode_health", "encode_levels"]

Level = tuple[int, str, Sequence[tuple[str, Sequence[Mapping[str, int]]]]]
"""One level of the tree: how deep it lies below the level that was asked for, its name, and (metric,
chunks) of the series it holds itself."""


def decode_selectors(body: bytes) -> list[tuple[str, ...]]:
    """Return the paths that a list of lists of names stands for, each once; none for ``null``.

    Raises ProtocolError.
    """
    value = decode_value(body)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ProtocolError("body: not a list (wanted a list of selectors, each a list of names)")
    for number, selector in enumerate(value):
        if not isinstance(selector, list) or not all(isinstance(name, str) for name in selector):
            raise ProtocolError(f"body[{number}]: not a list of names (wanted cluster, host ...)")
    return list(dict.fromkeys(map(tuple, value)))


def decode_health(body: bytes) -> HealthRequest:
    """Return whose health a request asks for. Raises ProtocolError."""
    return structure(decode_value(body), HealthRequest, strict=True)


def encode_health(health: Iterable[tuple[str, NodeHealth]]) -> Iterator[bytes]:
    """Write the health of hosts, each once, as an object by host; the lists of metrics are JSON in a text."""
    separator = b"{"
    for host, node in health:
        entry = {"State": node.state.value, "HealthMetrics": _lists(node) if node.known else ""}
        yield separator + orjson.dumps(host) + b":" + orjson.dumps(entry)
        separator = b","
    yield b"{}\n" if separator == b"{" else b"}\n"


def _lists(node: NodeHealth) -> str:
    return orjson.dumps({"degraded": list(node.degraded), "missing": list(node.missing)}).decode()


def encode_levels(levels: Iterable[Level]) -> Iterator[bytes]:
    """Write levels, parents first, as nested JSON objects; one piece for each level.

    The first level is the one that was asked for, at depth 0; its name is not written.
    """
    depth, separator = 0, ""
    yield b'{"data":{'
    for number, (below, name, series) in enumerate(levels):
        text = ""
        if number:
            text = _close(depth, below - 1) + (separator if below > depth else ",") + _line(below)
            text += f"{_quote(name)}:{{"
        for k, (metric, chunks) in enumerate(series):
            text += "," * (k > 0) + f"{_line(below + 1)}{_quote(metric)}:{orjson.dumps(chunks).decode()}"
        depth, separator = below, "," if series else ""
        yield text.encode()
    yield (_close(depth, 0) + "\n}}\n").encode()


def _close(depth: int, to: int) -> str:
    return "".join(_line(level) + "}" for level in range(depth, to, -1))


def _line(depth: int) -> str:
    return "\n" + "\t" * depth


def _quote(name: str) -> str:
    return orjson.dumps(name).decode()
