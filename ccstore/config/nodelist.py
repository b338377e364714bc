"""Node lists: which hosts a text such as ``node[01-10],login1`` means.

This module owns the grammar and three questions about a list: whether a host is in it, how many
hosts it means, and which. It reads no file. Invariant: no answer needs the list written out, so
``n[000000000-999999999]`` costs nobody anything until somebody asks for all of its names.

A list is turned into a graph of states once, when it is parsed. A state is what may still follow,
and to take one character off it gives another one (J. A. Brzozowski's derivative, 1964). What
several terms mean is one path through the graph: it is found in one step a character, however long
the list is, and it is counted and listed once.
"""

import re
from collections.abc import Iterator

from attrs import Factory, define, frozen

__all__ = ["NodeList", "parse_node_list"]

_MAX_NAME = 255  # characters; a longer host is stored nowhere
_MAX_STATES = 100_000  # 2 000 unlike names of 20 characters take 40 000

_Range = tuple[str, str]
"""First and last number, with equally many digits."""
_Rest = tuple["str | tuple[_Range, ...]", ...]
"""Parts that have to follow, one after the other: a text, or a number in one of several ranges."""

_STRANGE = re.compile(r"[^A-Za-z0-9,\[\]-]")
_TERM = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])*")
_PART = re.compile(r"([^\[\]]+)|\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]+)-([0-9]+)")


@define(eq=False)
class _State:
    """A point on the way through a name."""

    is_end: bool
    """Whether the name may end here."""
    next: "dict[str, _State]" = Factory(dict)
    """By the next character."""
    count: int = 0
    """How many names go on from here."""


@frozen(eq=False)
class NodeList:
    """A set of hosts, to be asked with `in` and ``count``; iteration gives the names in sorted order."""

    text: str
    """As it was written."""
    start: _State
    """Where every name begins."""

    @property
    def count(self) -> int:
        """How many hosts there are; one that several terms mean counts once."""
        return self.start.count

    def __contains__(self, host: str) -> bool:
        state = self.start
        for character in host:
            if character not in state.next:
                return False
            state = state.next[character]
        return state.is_end

    def __iter__(self) -> Iterator[str]:
        """Yield the names, each made when its turn comes: take as many as are wanted."""
        waiting = [("", self.start)]
        while waiting:
            name, state = waiting.pop()
            if state.is_end:
                yield name
            waiting += [
                (name + character, state.next[character]) for character in sorted(state.next, reverse=True)
            ]

    def first_common(self, other: "NodeList") -> str | None:
        """Return the first host that is in both lists, None if there is none."""
        waiting, seen = [("", self.start, other.start)], set[tuple[int, int]]()
        while waiting:
            name, one, two = waiting.pop()
            if one.is_end and two.is_end:
                return name
            if (id(one), id(two)) not in seen:
                seen.add((id(one), id(two)))
                both = sorted(one.next.keys() & two.next.keys(), reverse=True)
                waiting += [
                    (name + character, one.next[character], two.next[character]) for character in both
                ]
        return None


def parse_node_list(text: str) -> NodeList:
    """Parse ``list = [ term *( "," term ) [ "," ] ]`` of names with ranges in brackets.

    Raises ValueError with what is wrong.
    """
    if strange := _STRANGE.search(text):
        raise ValueError(f"{strange[0]!r} in a node list")
    rests, position = set(), 0
    while position < len(text):
        term = _TERM.match(text, position)
        assert term is not None, "it matches the empty text, too"
        position = term.end() + 1
        if text[term.end() : position] not in ("", ","):
            raise ValueError("a bracket without its other one")
        rests.add(_parse_term(term[0]))
    return NodeList(text, _build(frozenset(rests), {}))


def _parse_term(term: str) -> _Rest:
    if not term:
        raise ValueError("nothing between two commas")
    parts = [
        _parse_literal(part[1], term) if part[1] else _parse_ranges(part[2]) for part in _PART.finditer(term)
    ]
    if sum(len(part if isinstance(part, str) else part[0][0]) for part in parts) > _MAX_NAME:
        raise ValueError(f"a name of more than {_MAX_NAME} characters")
    return tuple(parts)


def _parse_literal(literal: str, term: str) -> str:
    if literal.startswith("-"):
        raise ValueError(f"{literal!r} at the start of a name or behind a range in {term!r}")
    return literal


def _parse_ranges(text: str) -> tuple[_Range, ...]:
    ranges = []
    for item in text.split(","):
        found = _RANGE.fullmatch(item)
        if found is None:
            raise ValueError(f"{item!r} is not a range such as 01-10")
        low, high = found[1], found[2]
        if len(low) != len(high):
            raise ValueError(f"bounds of different lengths in {item!r}")
        if low > high:
            raise ValueError(f"{item!r} goes down")
        ranges.append((low, high))
    return tuple(ranges)


def _build(rests: frozenset[_Rest], states: dict[frozenset[_Rest], _State]) -> _State:
    """Return the state in which `rests` may follow, with all states behind it; each is made once."""
    if (known := states.get(rests)) is not None:
        return known
    if len(states) >= _MAX_STATES:
        raise ValueError("too many different names")
    following: dict[str, set[_Rest]] = {}
    for rest in rests:
        for character, after in _take_character(rest):
            following.setdefault(character, set()).add(after)
    state = states[rests] = _State(() in rests)
    state.next = {character: _build(frozenset(after), states) for character, after in following.items()}
    state.count = state.is_end + sum(after.count for after in state.next.values())
    return state


def _take_character(rest: _Rest) -> Iterator[tuple[str, _Rest]]:
    """Yield each character that `rest` can begin with, and what has to follow it then."""
    if not rest:
        return
    part, behind = rest[0], rest[1:]
    if isinstance(part, str):
        yield part[0], (part[1:], *behind) if part[1:] else behind
        return
    for low, high in part:
        for digit in map(str, range(int(low[0]), int(high[0]) + 1)):
            # behind a first digit of its own, each bound holds no more
            left = low[1:] if digit == low[0] else "0" * (len(low) - 1)
            right = high[1:] if digit == high[0] else "9" * (len(high) - 1)
            yield digit, (((left, right),), *behind) if left else behind
