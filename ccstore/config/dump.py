"""The way back: a `Config` as the JSON object that an operator could have written.

This module owns nothing but that way. Invariant: what it makes can be loaded again and means the
same, except for passwords and tokens, which are masked because the output ends up in tickets.
"""

from typing import Any

import attrs

from ccstore.config.keys import Kind, ListOf, Section, key_of
from ccstore.config.sections import Config

__all__ = ["dump_config", "write_value"]


def dump_config(config: Config) -> dict[str, Any]:
    """Return all keys with their values in the units of the file; absent sections are None."""
    return {
        "main": _section(config.main),
        "metrics": None if config.metrics_derived else _metrics(config),
        "metric-store": _section(config.metric_store),
        "nats": _section(config.nats),
        "archive": _section(config.archive),
        "cron": _section(config.cron),
    }


def _metrics(config: Config) -> dict[str, Any]:
    return {
        metric.name: {
            "frequency": metric.frequency,
            "aggregation": metric.aggregation.value or None,
            **({"unit": metric.unit} if metric.unit else {}),
        }
        for metric in config.metrics.values()
    }


def _section(section: attrs.AttrsInstance) -> dict[str, Any]:
    shown = {}
    for field in attrs.fields(type(section)):
        declared = key_of(field)
        value = getattr(section, field.name)
        shown[declared.name] = declared.mask(value) if declared.mask else write_value(declared.kind, value)
    return shown


def write_value(kind: Kind, value: Any) -> Any:
    """Return the JSON value that stands for `value` in a file."""
    match kind:
        case Section():
            return None if value is None else _section(value)
        case ListOf():
            return [write_value(kind.item, item) for item in value]
        case _:
            return kind.write(value)
