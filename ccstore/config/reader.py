"""The walk from parsed JSON to sections, which finds every mistake and not only the first.

This module owns the comparison of a JSON value with what `keys` declares. It opens no file and
knows no key by name. Invariant: the walk never stops early. A broken value is noted and replaced
by the key's default, so that the rest of the file is still checked; the caller throws the result
away if `problems` is not empty.
"""

import difflib
import json
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import attrs
from attrs import define

from ccstore.config.keys import Kind, ListOf, Origin, Section, Value, key_of
from ccstore.errors import ConfigError

__all__ = ["JsonObject", "Reader", "closest"]

S = TypeVar("S", bound=attrs.AttrsInstance)

_SHOWN = 60
"""Characters of a wrong value that a message shows."""


class JsonObject(dict[str, Any]):
    """A JSON object that remembers which of its keys stood there more than once."""

    repeated: tuple[str, ...] = ()

    @classmethod
    def from_pairs(cls, pairs: list[tuple[str, Any]]) -> "JsonObject":
        """Make an object of its pairs in the order of the text; the last of equal keys wins."""
        made = cls(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            made.repeated = tuple(name for name in made if names.count(name) > 1)
        return made


@define
class Reader:
    """One walk over one configuration."""

    problems: list[str] = attrs.Factory(list)
    broken: set[str] = attrs.Factory(set)
    """Paths of keys whose value cannot be trusted, since something is wrong with it."""
    given: set[str] = attrs.Factory(set)
    """Paths of keys that stand in the file."""
    foreign: dict[str, Origin] = attrs.Factory(dict)
    """Paths of keys that stand in the file and that the reference store does not know."""

    def complain(self, path: str, what: str) -> None:
        """Note a mistake in the key at `path`."""
        self.problems.append(f"{path}: {what}")
        self.broken.add(path)

    def is_broken(self, path: str) -> bool:
        """Return whether something is wrong with the key at `path` or with what it stands in."""
        return any(path == broken or path.startswith(f"{broken}.") for broken in self.broken)

    def complain_about_repeated(self, value: object, path: str = "") -> None:
        """Note every key that stands more than once in its object, anywhere in `value`."""
        if isinstance(value, JsonObject):
            for name in value.repeated:
                self.complain(f"{path}.{name}".lstrip("."), "the key stands there more than once")
            for name, item in value.items():
                self.complain_about_repeated(item, f"{path}.{name}".lstrip("."))
        elif isinstance(value, list):
            for number, item in enumerate(value):
                self.complain_about_repeated(item, f"{path}[{number}]")

    def section(
        self,
        cls: type[S],
        raw: object,
        path: str,
        *,
        ignored: Collection[str] = (),
        shared: bool = False,
    ) -> S:
        """Return the instance of `cls` that the object `raw` means.

        Keys in `ignored` are passed over, and all that `cls` does not know if the object is shared with
        another program.
        """
        if not isinstance(raw, dict):
            self.complain(path, f"not an object (got {_show(raw)}, wanted an object)")
            return cls()
        fields = {key_of(field).name: field for field in attrs.fields(cls)}
        for name in raw:
            if name in ignored:
                self.foreign[f"{path}.{name}"] = "backend"
            elif name not in fields and not shared:
                self.complain(f"{path}.{name}", f"unknown key{_hint(name, fields)}")
        values = {}
        for name, field in fields.items():
            value = self._field(field, raw, f"{path}.{name}".lstrip("."))
            if value is not attrs.NOTHING:
                values[field.name] = value
        return cls(**values)

    def _field(self, field: "attrs.Attribute[Any]", raw: dict[str, Any], path: str) -> Any:
        """Return the field's value, or NOTHING if its default is to be taken."""
        declared = key_of(field)
        value = raw.get(declared.name)
        takes_null = isinstance(declared.kind, Value) and declared.kind.takes_null
        if value is None and not (takes_null and declared.name in raw):
            if declared.required:
                self.complain(path, f"missing (wanted {_wanted(declared.kind)})")
            return attrs.NOTHING
        self.given.add(path)
        if declared.origin != "store":
            self.foreign[path] = declared.origin
        return self._value(declared.kind, value, path, declared.mask)

    def _value(self, kind: Kind, raw: Any, path: str, mask: Callable[[str], str] | None = None) -> Any:
        """Return what `raw` means, or NOTHING after noting why it means nothing."""
        match kind:
            case Section():
                return self.section(kind.cls, raw, path, shared=kind.shared)
            case ListOf():
                if not isinstance(raw, list):
                    self.complain(path, f"not a list (got {_show(raw)}, wanted {_wanted(kind)})")
                    return attrs.NOTHING
                items = [self._value(kind.item, item, f"{path}[{n}]") for n, item in enumerate(raw)]
                return tuple(item for item in items if item is not attrs.NOTHING)
            case Value():
                try:
                    return kind.read(raw)
                except ValueError as error:
                    self.complain(path, f"{error} (got {_show(raw, mask)}, wanted {kind.wanted})")
                except ConfigError as error:
                    for problem in error.problems:
                        self.complain(path, problem)
                return attrs.NOTHING


def closest(name: str, known: Collection[str]) -> str | None:
    """Return the one of `known` that `name` was probably meant to be."""
    found = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
    return found[0] if found else None


def _hint(name: str, known: Collection[str]) -> str:
    meant = closest(name, known)
    return f' (did you mean "{meant}"?)' if meant else ""


def _wanted(kind: Kind) -> str:
    match kind:
        case Section():
            return "an object"
        case ListOf():
            return f"a list, each {_wanted(kind.item)}"
        case Value():
            return kind.wanted


def _show(value: Any, mask: Callable[[str], str] | None = None) -> str:
    """Return `value` as JSON, short, and masked if it is a secret."""
    if mask is not None:
        value = mask(value) if isinstance(value, str) else "***"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
