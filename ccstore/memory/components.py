"""What a host has: its components, and which metrics are stored of each.

Reads the tree of places; changes nothing. A component is stored under one name, such as
``socket0`` or ``accelerator0000:81:00.0``, made of the tags type and type-id of its lines. To ask for it
one has to name both, so here the name is taken apart again: a usual type ends where its name does, any
other before the first digit or slash.
"""

import re
from collections.abc import Iterator

from attrs import frozen

from ccstore.memory.store import Store

__all__ = ["Component", "by_number", "components_of", "split_component"]

_TYPES = ("accelerator", "core", "die", "hwthread", "memoryDomain", "node", "socket")
_NAME = re.compile(rf"({'|'.join(_TYPES)}|[^0-9/]*)(.*)", re.DOTALL)
_DIGITS = re.compile("([0-9]+)")


@frozen
class Component:
    """A host, a component, or a subcomponent, and the metrics that are stored there."""

    type: str
    """``node`` for the host itself."""
    id: str
    subtype: str
    """Empty for what is no subcomponent."""
    subid: str
    metrics: tuple[str, ...]
    """Sorted by name."""


def split_component(name: str) -> tuple[str, str]:
    """Return type and id of the name of a component or a part of it, such as ``socket`` and ``0``."""
    found = _NAME.fullmatch(name)
    assert found is not None, "the pattern matches every text"
    return found[1], found[2]


def by_number(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts names so that ``socket2`` comes before ``socket10``."""
    return [(bool(i % 2), int(part[:18]) if i % 2 else 0, part) for i, part in enumerate(_DIGITS.split(name))]


def components_of(store: Store, cluster: str, host: str) -> Iterator[Component]:
    """Yield the host itself and what is visible below it, each with its metrics, if it has any."""
    place = store.locate((cluster, host), create=False)
    if place < 0:
        return
    yield from _at(store, place, ("node", ""))
    for name, below in _in_order(store, place):
        component = split_component(name)
        yield from _at(store, below, component)
        for subname, lowest in _in_order(store, below):
            yield from _at(store, lowest, component, split_component(subname))


def _at(
    store: Store, place: int, component: tuple[str, str], below: tuple[str, str] = ("", "")
) -> Iterator[Component]:
    if metrics := sorted(name for name, _ in store.series_at(place)):
        yield Component(*component, *below, tuple(metrics))


def _in_order(store: Store, place: int) -> list[tuple[str, int]]:
    """Return what is visible right below a place, socket2 before socket10."""
    return sorted(store.index.visible(place).items(), key=lambda child: by_number(child[0]))
