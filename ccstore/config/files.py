"""The only place of this room that opens files: JSON files of an operator, and small texts.

It knows nothing of what should stand in them. Invariant: a file is taken as a whole or refused with its
path and, where JSON is broken, with line and column.
"""

import json
from pathlib import Path
from typing import Any

from ccstore.config.reader import JsonObject
from ccstore.errors import ConfigError

__all__ = ["read_json", "read_text"]


def read_text(path: str) -> str:
    """Return the text of the file; raises ConfigError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not text ({error})") from error


def read_json(path: str) -> Any:
    """Return the JSON value in the file, its objects as `JsonObject`; raises ConfigError."""
    text = read_text(path)
    try:
        value = json.loads(text, object_pairs_hook=JsonObject.from_pairs, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair, which is no text
        return value
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise ConfigError(f"{path}: line {error.lineno}, column {error.colno}: {what}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")
