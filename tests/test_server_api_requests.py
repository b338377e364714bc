"""The JSON of the smaller requests, whatever the names in it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstore.errors import ProtocolError
from ccstore.model import Health, NodeHealth
from ccstore.wire.requests import Level, decode_selectors, encode_health, encode_levels

names = st.text(st.characters(codec="utf-8"), max_size=5)
chunks = st.lists(st.fixed_dictionaries({"start": st.integers(-(2**60), 2**60), "len": st.integers(1, 512)}))
metrics = st.dictionaries(names.map(lambda name: f"m{name}"), chunks, max_size=3)
trees = st.recursive(
    st.tuples(metrics, st.just({})),
    lambda below: st.tuples(metrics, st.dictionaries(names.map(lambda name: f"p{name}"), below, max_size=4)),
    max_leaves=12,
)


def walk(tree: tuple[dict[str, Any], dict[str, Any]], name: str = "", depth: int = 0) -> Iterator[Level]:
    """Yield the levels of a tree, parents first."""
    series, below = tree
    yield depth, name, list(series.items())
    for child, subtree in below.items():
        yield from walk(subtree, child, depth + 1)


def as_object(tree: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """Return a tree as the object that stands for it."""
    series, below = tree
    return series | {name: as_object(subtree) for name, subtree in below.items()}


@given(trees)
def test_levels_are_json(tree: Any) -> None:
    """Any tree is written as nested objects, indented by its depth."""
    text = b"".join(encode_levels(walk(tree))).decode()
    assert json.loads(text) == {"data": as_object(tree)}
    assert text.endswith("\n}}\n")


def test_no_level() -> None:
    """A place that vanished before its turn is an empty object."""
    assert b"".join(encode_levels([])) == b'{"data":{\n}}\n'


@given(
    st.dictionaries(
        names,
        st.builds(NodeHealth, st.sampled_from(Health), st.booleans(), st.lists(names), st.lists(names)),
    )
)
def test_health_is_json_with_json_in_it(health: dict[str, NodeHealth]) -> None:
    """Hosts in their order, lists as text, and no text for an unknown host."""
    value = json.loads(b"".join(encode_health(health.items())))
    assert list(value) == list(health)
    for host, node in health.items():
        lists = {"degraded": list(node.degraded), "missing": list(node.missing)}
        assert value[host]["State"] == node.state.value
        text = value[host]["HealthMetrics"]
        assert (json.loads(text) == lists) if node.known else text == ""


@given(st.lists(st.lists(names)))
def test_selectors(selectors: list[list[str]]) -> None:
    """Each is there once, in the order of the first."""
    assert decode_selectors(json.dumps(selectors).encode()) == list(dict.fromkeys(map(tuple, selectors)))


@pytest.mark.parametrize(
    "body", ["3", '"c"', '{"a":1}', '["c"]', "[[1]]", "[null]", '[["c"],[["h"]]]', "[[]"]
)
def test_what_is_no_list_of_selectors(body: str) -> None:
    """Anything but lists of names is refused."""
    with pytest.raises(ProtocolError, match=r"^body"):
        decode_selectors(body.encode())
