"""The configuration as a JSON Schema, for editors and for whoever writes configurations by a program.

This module owns the way from what `sections` declares to a schema. It checks nothing itself. Invariant:
what ccstore takes, the schema takes; and a key that ccstore does not know, the schema does not know
either. What holds between two keys, and a few forms of text, only ccstore tells.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from ccstore.config.dump import write_value
from ccstore.config.keys import METRIC_NAME, Kind, ListOf, Section, Value, key_of
from ccstore.config.load import IGNORED_MAIN_KEYS
from ccstore.config.sections import (
    ArchiveConfig,
    CronConfig,
    MainConfig,
    MetricEntry,
    MetricStoreConfig,
    NatsConfig,
)

__all__ = ["make_schema"]

Schema = dict[str, Any]


def make_schema() -> Schema:
    """Return the schema (draft 2020-12) of a configuration file."""
    sections: dict[str, Schema] = {
        "main": _object(MainConfig, ignored=IGNORED_MAIN_KEYS),
        "metrics": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": dict(METRIC_NAME.schema),
            "additionalProperties": _object(MetricEntry),
        },
        "metric-store": _object(MetricStoreConfig),
        "nats": _object(NatsConfig),
        "archive": _object(ArchiveConfig, shared=True),
        "cron": _object(CronConfig, shared=True),
    }
    needed = [
        {"anyOf": [{"required": [name]}, {"required": [f"{name}-file"]}]} for name in ("main", "metric-store")
    ]
    files = {
        f"{name}-file": {"type": "string", "description": f"a file with section {name}"} for name in sections
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of ccstore",
        "type": "object",
        "properties": {name: _or_null(schema) for name, schema in (sections | files).items()},
        "allOf": needed,
    }


def _object(
    cls: type[attrs.AttrsInstance], *, ignored: frozenset[str] = frozenset(), shared: bool = False
) -> Schema:
    """Return the schema of the object that `cls` declares; if it is shared, it may have any other key."""
    fields = attrs.fields(cls)
    schema: Schema = {
        "type": "object",
        "properties": {key_of(field).name: _field(cls, field) for field in fields}
        | dict.fromkeys(sorted(ignored), True),
        "additionalProperties": shared,
    }
    if required := [key_of(field).name for field in fields if key_of(field).required]:
        schema["required"] = required
    return schema


def _field(cls: type[attrs.AttrsInstance], field: "attrs.Attribute[Any]") -> Schema:
    declared = key_of(field)
    if declared.required:
        return _kind(declared.kind)
    schema = _or_null(_kind(declared.kind))
    if not isinstance(declared.kind, Section) and not declared.mask:
        schema["default"] = write_value(declared.kind, getattr(cls(), field.name))
    return schema


def _kind(kind: Kind) -> Schema:
    match kind:
        case Section():
            return _object(kind.cls, shared=kind.shared)
        case ListOf():
            return {"type": "array", "items": _kind(kind.item)}
        case Value():
            return {"description": kind.wanted, **kind.schema}


def _or_null(schema: Mapping[str, Any]) -> Schema:
    """Return a schema that takes ``null``, too: for a key that may be absent it means the same."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    types = schema["type"]
    return {**schema, "type": types if isinstance(types, list) else [types, "null"]}
