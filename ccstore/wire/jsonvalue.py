"""JSON bodies of requests: bytes -> frozen values of the model, or the place of a mistake.

The rules are those that clients of the reference store are used to: keys match whatever their case,
``null`` stands for the default, whatever follows the first value is ignored, and an integer has
neither fraction nor exponent. Types are never converted.

Owns these rules and the names that the model's fields have in JSON. Invariant: whatever a body
holds, the outcome is a value or a ProtocolError, and the text of either can be written again.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from ccstore.errors import ProtocolError
from ccstore.model import (
    HealthRequest,
    Job,
    JobKey,
    JobQuery,
    JobStop,
    NodeReport,
    Query,
    QueryRequest,
    ReportedNode,
    Resource,
    Tag,
)

__all__ = ["decode_value", "structure"]

T = TypeVar("T")

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_WHITE = " \t\n\r"
_SURROGATE = re.compile("[\ud800-\udfff]")  # json lets half of a pair pass
_MOST_PROBLEMS = 5


def decode_value(body: bytes) -> Any:
    """Return the first JSON value of a body. Raises ProtocolError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # it may still be good: orjson refuses what follows the value, and half of a surrogate pair
    try:
        text = body.decode().lstrip(_WHITE)
        if not text:
            raise ProtocolError("body: empty (wanted JSON)")
        return json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text)[0]
    except RecursionError:
        raise ProtocolError("body: nested too deeply") from None
    except ValueError as error:
        raise ProtocolError(f"body: not JSON ({error})") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")


def structure(value: Any, cls: type[T], *, strict: bool = False) -> T:
    """Make an instance of a model class of a JSON value; `strict` refuses unknown keys.

    Raises ProtocolError, which names the places of the first mistakes.
    """
    try:
        made: T = _take_object(value, cls, strict=strict)
    except _WrongError as error:
        problems = "; ".join(f"body{where}: {what}" for where, what in error.problems[:_MOST_PROBLEMS])
        raise ProtocolError(problems) from None
    return made


class _WrongError(Exception):
    """What is wrong with a value, and where in it."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        self.problems = problems


_Take = Callable[[Any], Any]
"""Returns the value for a field, or raises _WrongError."""


def _take_object(value: Any, cls: type, *, strict: bool = False) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(value, "an object")
    fields, folded, found = _FIELDS[cls], _FOLDED[cls], {}
    problems: list[tuple[str, str]] = []
    for key, item in value.items():
        field = fields.get(key) or folded.get(key.lower())
        if field is None:
            if strict:
                problems.append(("", f"unknown key {_show(key)}"))
        elif item is not None:
            name, take = field
            try:
                taken = take(item)
                if name is not None:
                    found[name] = taken
            except _WrongError as error:
                problems += [(f".{key}{where}", what) for where, what in error.problems]
    if problems:
        raise _WrongError(*problems)
    return cls(**found)


def _take_list(value: Any, kind: str, take: _Take, default: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(value, f"a list of {kind}")
    taken = []
    for number, item in enumerate(value):
        try:
            taken.append(default if item is None else take(item))
        except _WrongError as error:
            raise _WrongError(*[(f"[{number}]{where}", what) for where, what in error.problems]) from None
    return tuple(taken)


def _take_names(value: Any) -> tuple[Any, ...]:
    return _take_list(value, "strings", _take_text, "")


def _take_queries(value: Any) -> tuple[Any, ...]:
    return _take_list(value, "objects", lambda item: _take_object(item, Query), Query())


def _take_resources(value: Any) -> tuple[Any, ...]:
    return _take_list(value, "objects", lambda item: _take_object(item, Resource, strict=True), Resource())


def _take_tags(value: Any) -> tuple[Any, ...]:
    return _take_list(value, "objects", lambda item: _take_object(item, Tag, strict=True), Tag())


def _take_nodes(value: Any) -> tuple[Any, ...]:
    return _take_list(
        value, "objects", lambda item: _take_object(item, ReportedNode, strict=True), ReportedNode()
    )


def _take_job_key(value: Any) -> Any:
    return _take_object(value, JobKey, strict=True)


def _take_numbers(value: Any) -> tuple[Any, ...]:
    return _take_list(value, "integers", _take_integer, 0)


def _take_texts(value: Any) -> Mapping[str, str]:
    taken = {}
    for key, item in _take_any_object(value).items():
        try:
            taken[_take_text(key)] = "" if item is None else _take_text(item)
        except _WrongError as error:
            raise _WrongError(*[(f"[{_show(key)}]{where}", what) for where, what in error.problems]) from None
    return taken


def _take_any_object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(value, "an object")
    return value


def _take_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "a string")
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _take_integer(value: Any) -> int:
    if type(value) is not int or value not in _INT64:
        raise _wrong(value, "an integer")
    return value


def _take_int32(value: Any) -> int:
    if type(value) is not int or value not in _INT32:
        raise _wrong(value, "an integer of 32 bits")
    return value


def _take_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def _take_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, "a number")
    try:
        return float(value)
    except OverflowError:
        raise _wrong(value, "a number") from None


def _wrong(value: Any, wanted: str) -> _WrongError:
    return _WrongError(("", f"{_show(value)} (wanted {wanted})"))


def _show(value: Any) -> str:
    if isinstance(value, list | Mapping):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


_FIELDS: Mapping[type, Mapping[str, tuple[str | None, _Take]]] = {
    Query: {
        "metric": ("metric", _take_text),
        "host": ("host", _take_text),
        "resolution": ("resolution", _take_integer),
        "type": ("type", _take_text),
        "type-ids": ("type_ids", _take_names),
        "subtype": ("subtype", _take_text),
        "subtype-ids": ("subtype_ids", _take_names),
        "aggreg": ("aggregate", _take_flag),
        "scale-by": ("scale_by", _take_number),
    },
    QueryRequest: {
        "cluster": ("cluster", _take_text),
        "from": ("start", _take_integer),
        "to": ("stop", _take_integer),
        "with-stats": ("with_stats", _take_flag),
        "with-data": ("with_data", _take_flag),
        "with-padding": ("with_padding", _take_flag),
        "queries": ("queries", _take_queries),
        "for-all-nodes": ("for_all_nodes", _take_names),
    },
    JobQuery: {
        "job": ("job", _take_job_key),
        "metrics": ("metrics", _take_names),
        "scope": ("scope", _take_text),
        "resolution": ("resolution", _take_integer),
        "from": ("start", _take_integer),
        "to": ("stop", _take_integer),
        "with-stats": ("with_stats", _take_flag),
        "with-data": ("with_data", _take_flag),
        "with-padding": ("with_padding", _take_flag),
    },
    JobKey: {
        "cluster": ("cluster", _take_text),
        "jobId": ("job_id", _take_integer),
        "startTime": ("start_time", _take_integer),
    },
    HealthRequest: {
        "cluster": ("cluster", _take_text),
        "nodes": ("nodes", _take_names),
        "metric-names": ("metric_names", _take_names),
    },
    NodeReport: {
        "cluster": ("cluster", _take_text),
        "nodes": ("nodes", _take_nodes),
    },
    ReportedNode: {
        "hostname": ("hostname", _take_text),
        "states": ("states", _take_names),
        "cpusAllocated": ("cpus_allocated", _take_integer),
        "memoryAllocated": ("memory_allocated", _take_integer),
        "gpusAllocated": ("gpus_allocated", _take_integer),
        "jobsRunning": ("jobs_running", _take_integer),
    },
    Job: {
        "cluster": ("cluster", _take_text),
        "subCluster": ("subcluster", _take_text),
        "jobId": ("job_id", _take_integer),
        "startTime": ("start_time", _take_integer),
        "user": ("user", _take_text),
        "project": ("project", _take_text),
        "partition": ("partition", _take_text),
        "shared": ("shared", _take_text),
        "numNodes": ("num_nodes", _take_int32),
        "numHwthreads": ("num_hwthreads", _take_int32),
        "numAcc": ("num_acc", _take_int32),
        "smt": ("smt", _take_int32),
        "walltime": ("walltime", _take_integer),
        "arrayJobId": ("array_job_id", _take_integer),
        "submitTime": ("submit_time", _take_integer),
        "monitoringStatus": ("monitoring_status", _take_int32),
        "resources": ("resources", _take_resources),
        "metaData": ("metadata", _take_texts),
        "tags": ("tags", _take_tags),
        "jobState": (None, _take_text),
        "requestedMemory": (None, _take_integer),
        "duration": (None, _take_int32),
        "energy": (None, _take_number),
        "footprint": (None, _take_any_object),
        "energyFootprint": (None, _take_any_object),
        "statistics": (None, _take_any_object),
        "concurrentJobs": (None, _take_any_object),
        "id": (None, _take_integer),
    },
    Resource: {
        "hostname": ("hostname", _take_text),
        "hwthreads": ("hwthreads", _take_numbers),
        "accelerators": ("accelerators", _take_names),
        "configuration": ("configuration", _take_text),
    },
    Tag: {
        "type": ("type", _take_text),
        "name": ("name", _take_text),
        "scope": ("scope", _take_text),
        "id": (None, _take_integer),
    },
    JobStop: {
        "jobId": ("job_id", _take_integer),
        "cluster": ("cluster", _take_text),
        "startTime": ("start_time", _take_integer),
        "jobState": ("state", _take_text),
        "stopTime": ("stop_time", _take_integer),
    },
}
"""For each key: the field that it fills, None for one that is taken and not kept, and how."""

_FOLDED = {cls: {key.lower(): field for key, field in fields.items()} for cls, fields in _FIELDS.items()}
