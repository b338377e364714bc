"""Node lists: the grammar row by row, and every answer against a list that is written out."""

import itertools
import math
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.config.nodelist import parse_node_list


@pytest.mark.parametrize(
    ("text", "inside", "outside", "count"),
    [
        ("node[01-10],login", ["node01", "node10", "login"], ["node11", "node1", "node001", "login1"], 11),
        ("a[1-9]", ["a1", "a9"], ["a10", "a0", "a"], 9),
        ("a[1-3]b[01-02]", ["a1b01", "a3b02"], ["a1", "a4b01", "a1b03"], 6),
        ("cn-00[10-20]", ["cn-0010", "cn-0020"], ["cn-0021", "cn-0009"], 11),
        ("a,", ["a"], ["", "a,"], 1),
        ("", [], ["", "a"], 0),
        ("a[1-3]", ["a1"], ["a+1", "a 1", "a\uff11", "A1", "a1\n", "a1 "], 3),
        ("a[1-9,10-12]", ["a1", "a9", "a10", "a12"], ["a0", "a01", "a13"], 12),
        ("[1-3]", ["1", "3"], ["4", ""], 3),
        ("a[0-1]b", ["a0b", "a1b"], ["a0", "a0bb"], 2),
        ("a,a-,a-b", ["a", "a-", "a-b"], ["a-b-"], 3),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else None,
)
def test_a_list_means_these_hosts_and_no_others(text, inside, outside, count):
    """The worked rows of the grammar, and names that nearly match."""
    nodes = parse_node_list(text)
    assert ([host in nodes for host in inside], [host in nodes for host in outside]) == (
        [True] * len(inside),
        [False] * len(outside),
    )
    assert (nodes.count, len(list(nodes))) == (count, count)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a[01-9]", "bounds of different lengths in '01-9'"),
        ("a[1]", "'1' is not a range such as 01-10"),
        ("a[1,2]", "'1' is not a range such as 01-10"),
        ("a[]", "'' is not a range such as 01-10"),
        ("a[1-2,]", "'' is not a range such as 01-10"),
        ("a[1-2-3]", "'1-2-3' is not a range such as 01-10"),
        ("a[a-b]", "'a-b' is not a range such as 01-10"),
        ("a[01-02", "a bracket without its other one"),
        ("a01-02]", "a bracket without its other one"),
        ("a[1-2[3-4]]", "a bracket without its other one"),
        ("a_b", "'_' in a node list"),
        ("a.b", "'.' in a node list"),
        ("a b", "' ' in a node list"),
        ("a, b", "' ' in a node list"),
        ("a*", "'*' in a node list"),
        ("ä1", "'ä' in a node list"),
        ("a[+1-2]", "'+' in a node list"),
        ("a[1-2]-b", "'-b' at the start of a name or behind a range in 'a[1-2]-b'"),
        ("-b", "'-b' at the start of a name or behind a range in '-b'"),
        ("a[05-03]", "'05-03' goes down"),
        ("a,,b", "nothing between two commas"),
        (",a", "nothing between two commas"),
        (",", "nothing between two commas"),
        ("a,,", "nothing between two commas"),
        ("a" * 256, "a name of more than 255 characters"),
        (f"[{'0' * 200}-{'9' * 200}]{'b' * 56}", "a name of more than 255 characters"),
        (",".join(f"{k:05}" * 13 for k in range(2500)), "too many different names"),
    ],
    ids=lambda text: text if len(text) < 30 else text[:20],
)
def test_what_is_no_list_is_refused(text, wrong):
    """The message tells what is wrong, and where that is not plain to see."""
    with pytest.raises(ValueError, match=f"^{re.escape(wrong)}$"):
        parse_node_list(text)


names = st.from_regex(r"[a-b0-1]{1,3}", fullmatch=True)


@st.composite
def ranges(draw):
    """Return the text of a range and the numbers in it."""
    digits = draw(st.integers(1, 3))
    low, high = sorted(draw(st.tuples(*[st.integers(0, min(10**digits - 1, 130))] * 2)))
    return f"{low:0{digits}}-{high:0{digits}}", [f"{n:0{digits}}" for n in range(low, high + 1)]


@st.composite
def parts(draw):
    """Return the text of a part and what it can stand for."""
    if draw(st.booleans()):
        literal = draw(names)
        return literal, [literal]
    chosen = draw(st.lists(ranges(), min_size=1, max_size=2))
    return f"[{','.join(text for text, _ in chosen)}]", list(
        itertools.chain(*(numbers for _, numbers in chosen))
    )


@st.composite
def terms(draw):
    """Return the text of a term and all names it means, written out."""
    chosen = draw(st.lists(parts(), min_size=1, max_size=3).filter(lambda some: _size(some) < 3000))
    means = {"".join(name) for name in itertools.product(*(found for _, found in chosen))}
    return "".join(text for text, _ in chosen), means


def _size(chosen):
    return math.prod(len(found) for _, found in chosen)


@settings(deadline=None)
@given(chosen=st.lists(terms(), max_size=4), comma=st.booleans(), guesses=st.lists(names | st.text()))
def test_a_list_is_what_its_terms_mean_together(chosen, comma, guesses):
    """Membership, number and order agree with brute force, however terms and ranges overlap."""
    text = ",".join(term for term, _ in chosen) + ("," if comma and chosen else "")
    means = set().union(*(found for _, found in chosen))
    nodes = parse_node_list(text)
    assert list(nodes) == sorted(means)
    assert nodes.count == len(means)
    assert all(host in nodes for host in means)
    near = {name[:-1] for name in means} | {name + "0" for name in means} | set(guesses)
    assert {host for host in near if host in nodes} == near & means


@given(st.text(alphabet=string.ascii_lowercase[:2] + "01[],-.* ", max_size=20))
def test_any_text_is_a_list_or_a_clear_error(text):
    """No text makes the parser fail in another way than by ValueError with a message."""
    try:
        outcome = parse_node_list(text).count
    except ValueError as error:
        outcome = str(error)
    assert outcome != ""


def test_a_huge_range_is_counted_and_searched_without_being_written_out():
    """A million million hosts cost as little as ten, and the first names come at once."""
    nodes = parse_node_list("n[000000000001-999999999999],n[500000000000-500000000009]x")
    assert nodes.count == 10**12 - 1 + 10
    assert "n123456789012" in nodes
    assert "n000000000000" not in nodes
    assert list(itertools.islice(nodes, 2)) == ["n000000000001", "n000000000002"]
