"""ccstore: an in-memory metric store for HPC clusters.

The names below are the public ones; what is not listed may change tomorrow. `docs/reference/python.md`
says what each is good for, and `examples/embed.py` is a program that runs the server in a nursery of its own.

Each is imported when it is first asked for: ``ccstore --help`` imports this package, too, and shall not wait
for numpy and Trio. So this module imports nothing at run time but `importlib`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccstore.config import Config, load_config
    from ccstore.errors import (
        BusyError,
        CcstoreError,
        ConfigError,
        CorruptionError,
        ProtocolError,
        QueryError,
    )
    from ccstore.memory.store import Store
    from ccstore.server.service import run

__all__ = [
    "BusyError",
    "CcstoreError",
    "Config",
    "ConfigError",
    "CorruptionError",
    "ProtocolError",
    "QueryError",
    "Store",
    "__version__",
    "load_config",
    "run",
]

__version__ = "0.1.0"

_HOMES = {
    "BusyError": "ccstore.errors",
    "CcstoreError": "ccstore.errors",
    "Config": "ccstore.config",
    "ConfigError": "ccstore.errors",
    "CorruptionError": "ccstore.errors",
    "ProtocolError": "ccstore.errors",
    "QueryError": "ccstore.errors",
    "Store": "ccstore.memory.store",
    "load_config": "ccstore.config",
    "run": "ccstore.server.service",
}
"""The module of each name that is imported on demand."""


def __getattr__(name: str) -> object:
    """Import a public name; the next access finds it without coming here."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, whether imported or not."""
    return sorted({*globals(), *__all__})
