"""The reference's text checkpoint, ``<from>.json``: bytes <-> tree.

Owns the layout of these files and what readers let pass: keys match whatever their case, unknown keys and
whatever follows the first value are ignored, ``null`` is a missing value. Reads no file. Invariant: what is
written is one line of JSON with the keys in the reference's order and all names sorted, and reads back bit
for bit, but for an infinity, which JSON cannot say: it is written as missing.

The reference writes one decimal, so most of a load average or a ratio is lost; ccstore writes the shortest
number that is read as the same float32, which costs a few bytes and which the reference reads as well.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ccstore.disk.reference.checkpoint import (
    INT64,
    MAX_DEPTH,
    MAX_NAME_BYTES,
    Checkpoint,
    Entry,
    Level,
    make_entry,
)
from ccstore.errors import CorruptionError, ProtocolError
from ccstore.wire.jsonvalue import decode_value

__all__ = ["decode_json", "encode_json"]

_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair is no character
_NUMBER_TYPES = {int, float, type(None)}


def decode_json(data: bytes) -> Checkpoint:
    """Read a whole file. Raises CorruptionError."""
    try:
        value = decode_value(data)
    except ProtocolError as error:
        raise CorruptionError(str(error).replace("body: ", "byte 0: ", 1)) from error
    fields = _take_object(value, "")
    start, stop = (_take_integer(fields.get(key), f".{key}") for key in ("from", "to"))
    return Checkpoint(start, stop, _take_level(fields, "", 0))


def _take_level(fields: dict[str, Any], where: str, depth: int) -> Level:
    if depth > MAX_DEPTH:
        raise CorruptionError(f"{where}: nested deeper (wanted at most {MAX_DEPTH} levels)")
    level = Level()
    for name, value in _take_members(fields.get("metrics"), f"{where}.metrics"):
        level.entries[name] = _take_entry(value, f"{where}.metrics.{name}")
    for name, value in _take_members(fields.get("children"), f"{where}.children"):
        if len(name.encode()) > MAX_NAME_BYTES:
            raise CorruptionError(f"{where}.children: a longer name (wanted at most {MAX_NAME_BYTES} bytes)")
        inside = f"{where}.children.{name}"
        level.children[name] = _take_level(_take_object(value, inside), inside, depth + 1)
    return level


def _take_members(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of an object whose keys are names; absent and null ones are none."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise _wrong(value, where, "an object")
    for name, member in value.items():
        if member is not None:
            yield _SURROGATE.sub("\ufffd", name), member


def _take_object(value: Any, where: str) -> dict[str, Any]:
    """Return the fields of an object whose keys are not names, in lower case."""
    if not isinstance(value, dict):
        raise _wrong(value, where, "an object")
    return {key.casefold(): member for key, member in value.items()}


def _take_entry(value: Any, where: str) -> Entry:
    fields = _take_object(value, where)
    frequency, start = (_take_integer(fields.get(key), f"{where}.{key}") for key in ("frequency", "start"))
    return make_entry(frequency, start, _take_values(fields.get("data"), f"{where}.data"), where)


def _take_values(value: Any, where: str) -> NDArray[np.float32]:
    if value is None:
        return np.empty(0, np.float32)
    if not isinstance(value, list):
        raise _wrong(value, where, "a list")
    if not _NUMBER_TYPES.issuperset(map(type, value)):
        raise CorruptionError(f"{where}: an item is no number (wanted numbers and null)")
    try:
        with np.errstate(over="ignore"):
            values = np.array(value, np.float64).astype(np.float32)
    except OverflowError:  # an integer beyond float64
        values = np.array([np.inf], np.float32)
    if np.isinf(values).any():
        raise CorruptionError(f"{where}: an item is too large (wanted float32)")
    return values


def _take_integer(value: Any, where: str) -> int:
    if value is None:
        return 0
    if type(value) is not int or value not in INT64:
        raise _wrong(value, where, "a 64-bit integer")
    return value


def _wrong(value: Any, where: str, wanted: str) -> CorruptionError:
    return CorruptionError(f"{where or '.'}: {type(value).__name__} (wanted {wanted})")


def encode_json(checkpoint: Checkpoint) -> bytes:
    """Write a whole file: one line."""
    tree = _tree_of(checkpoint.host, checkpoint.start, checkpoint.stop)
    return orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _tree_of(level: Level, start: int, stop: int) -> dict[str, Any]:
    return {
        "metrics": {name: _fields_of(entry) for name, entry in sorted(level.entries.items())},
        "children": {name: _tree_of(child, start, stop) for name, child in sorted(level.children.items())},
        "from": start,
        "to": stop,
    }


def _fields_of(entry: Entry) -> dict[str, Any]:
    # the values of a snapshot lie at any byte of it
    values = np.require(entry.values, np.float32, ["C", "A"])
    return {"frequency": entry.frequency, "start": entry.start, "data": values}
