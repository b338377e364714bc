"""The parser of PromQL: what it takes, what it refuses and where, and that nothing harms it."""

import math

import pytest
from effort import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.errors import QueryError
from ccstore.model.promql import (
    AGGREGATORS,
    Aggregate,
    Expression,
    Matcher,
    Negation,
    Number,
    Operation,
    Rate,
    Vector,
    is_scalar,
)
from ccstore.wire.promql import parse_duration, parse_query, parse_selector


def matcher(label: str, operator: str, value: str) -> Matcher:
    """Make a condition that equals a parsed one."""
    return Matcher(label, operator, value, value.__eq__)


def vector(name: str, *conditions: tuple[str, str, str]) -> Vector:
    return Vector((matcher("__name__", "=", name), *(matcher(*condition) for condition in conditions)))


A = vector("a")
ONE, TWO, THREE = Number(1.0), Number(2.0), Number(3.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", ONE),
        (" 0x1F # a comment", Number(31.0)),
        (".5e1", Number(5.0)),
        ("1.", ONE),
        ("Inf", Number(math.inf)),
        ("-inf", Negation(Number(math.inf))),
        ("1 + 2 * 3", Operation("+", ONE, Operation("*", TWO, THREE))),
        ("1 * 2 + 3", Operation("+", Operation("*", ONE, TWO), THREE)),
        ("1 - 2 - 3", Operation("-", Operation("-", ONE, TWO), THREE)),
        ("1 ^ 2 ^ 3", Operation("^", ONE, Operation("^", TWO, THREE))),
        ("-1 ^ 2", Negation(Operation("^", ONE, TWO))),
        ("-1 * 2", Operation("*", Negation(ONE), TWO)),
        ("1 ^ -2 * 3", Operation("*", Operation("^", ONE, Negation(TWO)), THREE)),
        ("+1 % (2 / 3)", Operation("%", ONE, Operation("/", TWO, THREE))),
        ("a", A),
        ("a{}", A),
        ("{__name__='a'}", A),
        ('{"a"}', A),
        ("sum", vector("sum")),
        ("a:b_9", vector("a:b_9")),
        ('a{b="c",}', vector("a", ("b", "=", "c"))),
        (
            'a{b!=\'c\', d=~`e|f\\d`, "g"!~"h.*"}',
            vector("a", ("b", "!=", "c"), ("d", "=~", "e|f\\d"), ("g", "!~", "h.*")),
        ),
        (r'a{b="\"\\\n\t\x41\101\u00e9\U0001F600"}', vector("a", ("b", "=", '"\\\n\tAA\u00e9\U0001f600'))),
        ("rate(a[5m])", Rate(A, 300_000)),
        ("rate(a[1h30m15s500ms])", Rate(A, 5_415_500)),
        ("rate(a[90])", Rate(A, 90_000)),
        ("sum(a)", Aggregate("sum", A, (), False)),
        ("MAX by (b, c,) (a)", Aggregate("max", A, ("b", "c"), False)),
        ("count(a) without (b)", Aggregate("count", A, ("b",), True)),
        ("avg by () (rate(a[1m])) * 2", Operation("*", Aggregate("avg", Rate(A, 60_000), (), False), TWO)),
        ("2 - (a)", Operation("-", TWO, A)),
        ("min(sum by (b) (a))", Aggregate("min", Aggregate("sum", A, ("b",), False), (), False)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_takes(text: str, expected: Expression) -> None:
    """Each text has one meaning, that of Prometheus."""
    assert parse_query(text) == expected


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("", "1:1", "no expression"),
        ("1 +", "1:4", "unexpected 'end of the query'"),
        ("1 2", "1:3", "unexpected '2'"),
        ("5m", "1:1", "unexpected '5m'"),
        ("1..2", "1:1", "bad number or duration"),
        ("a ? b", "1:3", "unexpected character '?'"),
        ('a{b="c}', "1:5", "string without closing quote"),
        (r'a{b="\q"}', "1:5", "bad escape in a string"),
        (r'a{b="\xff"}', "1:5", "bad escape in a string"),
        (r'a{b="\ud800"}', "1:5", "bad escape in a string"),
        (r'a{b="\Uffffffff"}', "1:5", "bad escape in a string"),
        ('"text"', "1:1", "a string is not supported"),
        ("(a", "1:3", "'end of the query' behind an expression (wanted ')')"),
        ("a\n  + b", "2:3", "'+' between two vectors is not supported (wanted a number on one side)"),
        ("a * on(b) 2", "1:5", "'on' is not supported"),
        ("a == 1", "1:3", "'==' is not supported (wanted one of + - * / % ^)"),
        ("a > bool 1", "1:3", "'>' is not supported"),
        ("a and b", "1:3", "'and' is not supported"),
        ("1 atan2 2", "1:3", "'atan2' is not supported"),
        ("a offset 5m", "1:3", "'offset' is not supported"),
        ("a @ 5", "1:3", "'@' is not supported"),
        ("rate(a[5m] offset 1m)", "1:12", "'offset' is not supported"),
        ("a[5m]", "1:2", "a range is not supported here (wanted it as the argument of rate)"),
        ("rate(a)", "1:7", "')' in rate, which takes a range (wanted '[')"),
        ("rate(1)", "1:6", "rate takes a range selector (wanted such as flops_any[5m])"),
        ("rate(sum(a)[5m])", "1:9", "'(' in rate, which takes a range"),
        ("rate(a[5m:1m])", "1:10", "a subquery is not supported"),
        ("rate(a[0s])", "1:8", "range '0s' (wanted a duration such as 5m)"),
        ("rate(a[-5m])", "1:8", "range '-'"),
        ("rate(a[5s1m])", "1:8", "range '5s1m'"),
        ("irate(a[5m])", "1:1", "irate() is not supported (wanted one of rate, sum, avg, min, max, count)"),
        ("topk(5, a)", "1:1", "topk() is not supported"),
        ("histogram_quantile(0.9, a)", "1:1", "histogram_quantile() is not supported"),
        ("sum(1)", "1:5", "sum of a number (wanted a vector)"),
        ("sum(a, 1)", "1:6", "sum takes one argument"),
        ("sum a", "1:5", "unexpected 'a'"),
        ("sum by (a:b) (c)", "1:9", "'a:b' in a list of labels (wanted a label)"),
        ("sum by (a b) (c)", "1:11", "'b' in a list of labels (wanted ',')"),
        ("{}", "1:1", "vector selector must contain at least one non-empty matcher"),
        ('{a="",b!="c",d=~".*"}', "1:1", "vector selector must contain at least one non-empty matcher"),
        ('a{__name__="b"}', "1:1", "metric name must not be set twice: 'a' or 'b'"),
        ("a{b}", "1:4", "'}' behind a label (wanted = != =~ or !~)"),
        ("a{b=c}", "1:5", "'c' behind an operator (wanted a string)"),
        ('a{b="c" d="e"}', "1:9", "'d' in a selector (wanted ',')"),
        ('a{b=~"("}', "1:6", "regular expression: missing ): ("),
        ("(" * 101 + "1" + ")" * 101, "1:101", "more than 100 operators, calls and parentheses"),
        ("1" + "+1" * 101, "1:202", "more than 100 operators, calls and parentheses"),
        ("-" * 50_000 + "1", "1:101", "more than 100 operators, calls and parentheses"),
        ("a" * 70_000, "1:1", "70000 characters (wanted at most 65536)"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_it_refuses(text: str, at: str, what: str) -> None:
    """The error tells line, column, and what is wrong or not supported."""
    with pytest.raises(QueryError) as caught:
        parse_query(text)
    assert str(caught.value).startswith(f"{at}: parse error: {what}")


def test_selectors_alone() -> None:
    """Where series are asked for, nothing but a selector is one."""
    assert parse_selector("a") == A
    with pytest.raises(QueryError, match="1:1: parse error: not a selector"):
        parse_selector("sum(a)")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a0[1-3]", ["a01", "a03"], ["a04", "xa01", "a011", ""]),
        ("a|b", ["a", "b"], ["ab", "a|b", ""]),
        ("", [""], ["a"]),
        ("a|", ["a", ""], ["b"]),
        (".*", ["", "a", "a\nb"], []),
        ("(?i)node", ["NODE", "node"], ["nodes"]),
        (r"a\.b|c\.d", ["a.b", "c.d"], ["axb"]),
        (r"\d+", ["7"], ["\u0667"]),
    ],
    ids=repr,
)
def test_regular_expressions(pattern: str, yes: list[str], no: list[str]) -> None:
    """They match whole labels, in the syntax of RE2, and the dot takes a newline."""
    (_, found) = parse_selector(f"a{{b=~`{pattern}`}}").matchers
    (_, other) = parse_selector(f"a{{b!~`{pattern}`}}").matchers
    assert [text for text in yes + no if found.accepts(text)] == yes
    assert [text for text in yes + no if other.accepts(text)] == no


@pytest.mark.parametrize(
    "pattern", ["(a*)*b", "(a|a)*b", "(.*.*.*)*x", "(a+)+$b", "a?" * 200 + "a" * 200 + "b"], ids=len
)
def test_patterns_that_take_others_for_ever(pattern: str) -> None:
    """There is no backtracking: what is exponential elsewhere is over at once."""
    (_, found) = parse_selector(f'a{{b=~"{pattern}"}}').matchers
    assert not found.accepts("a" * 100_000)


@pytest.mark.parametrize(
    "pattern", ["(a{100}){100}", "a{1001}", r"(a)\\1", "(?=a)", "((((a{9}){9}){9}){9}){9}"], ids=repr
)
def test_patterns_that_are_too_much(pattern: str) -> None:
    """What would need much memory, or more than a regular expression is, is refused."""
    with pytest.raises(QueryError, match="1:6: parse error: regular expression: "):
        parse_selector(f'a{{b=~"{pattern}"}}')


def test_a_long_list_of_names() -> None:
    """Grafana lists every host that was chosen; the list is looked up, not searched."""
    names = [f"node{k:04}" for k in range(5000)]
    (_, found) = parse_selector(f'a{{b=~"{"|".join(names)}"}}').matchers
    assert all(map(found.accepts, names))
    assert not found.accepts("node")


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("5m", 300_000), ("1y2w3d4h5m6s7ms", 33_019_506_007), ("1m1m", 0), ("1s1m", 0), ("", 0), ("5", 0),
     ("-5m", 0), ("9" * 30 + "y", 0), ("1.5h", 0)],
)  # fmt: skip
def test_durations(text: str, milliseconds: int) -> None:
    """Units come once, larger ones first; 0 is no duration."""
    assert parse_duration(text) == milliseconds


# --- generated queries

NAMES = st.from_regex("[a-z_:][a-z0-9_:]{0,3}", fullmatch=True).filter(
    lambda name: name.lower() not in {*AGGREGATORS, "inf", "nan", "by", "without", "on", "bool"}
)
LABELS = st.from_regex("[a-z_][a-z0-9_]{0,3}", fullmatch=True)
MATCHERS = st.builds(matcher, LABELS, st.sampled_from(["=", "!="]), st.text(max_size=5)) | st.builds(
    matcher, LABELS, st.sampled_from(["=~", "!~"]), st.sampled_from(["a|b", ".+", "[0-9]{3}x"])
)
VECTORS = st.builds(
    lambda name, conditions: Vector((matcher("__name__", "=", name), *conditions)),
    NAMES,
    st.lists(MATCHERS.filter(lambda m: m.label != "__name__"), max_size=3),
)
SCALARS = st.recursive(
    st.floats(min_value=0, allow_nan=False).map(Number),
    lambda inner: st.builds(Negation, inner) | st.builds(Operation, st.sampled_from("+-*/%^"), inner, inner),
    max_leaves=4,
)


def vectors(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.one_of(
        st.builds(Negation, inner),
        st.builds(Operation, st.sampled_from("+-*/%^"), inner, SCALARS),
        st.builds(Operation, st.sampled_from("+-*/%^"), SCALARS, inner),
        st.builds(
            Aggregate,
            st.sampled_from(AGGREGATORS),
            inner,
            st.lists(LABELS, max_size=2, unique=True).map(tuple),
            st.booleans(),
        ),
    )


EXPRESSIONS = SCALARS | st.recursive(
    VECTORS | st.builds(Rate, VECTORS, st.integers(1, 10**12)), vectors, max_leaves=6
)


def write(expression: Expression) -> str:
    """Write an expression with parentheses wherever they may be."""
    match expression:
        case Number(value):
            return repr(value)
        case Vector(matchers):
            conditions = ",".join(f"{m.label}{m.operator}{quote(m.value)}" for m in matchers[1:])
            return f"{matchers[0].value}{{{conditions}}}"
        case Rate():
            return f"rate({write(expression.vector)}[{expression.window_ms}ms])"
        case Negation():
            return f"(-({write(expression.operand)}))"
        case Operation(operator, left, right):
            return f"({write(left)} {operator} {write(right)})"
        case Aggregate(function, operand, labels, without):
            return f"{function} {'without' if without else 'by'} ({', '.join(labels)}) ({write(operand)})"
    raise AssertionError(expression)


def quote(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" if c in '"\\\n' else c for c in text) + '"'


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(EXPRESSIONS)
def test_round_trip(expression: Expression) -> None:
    """What is written is what is read."""
    parsed = parse_query(write(expression))
    assert parsed == expression
    assert is_scalar(parsed) == is_scalar(expression)


PIECES = [
    "sum",
    "by",
    "rate",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "5m",
    "1",
    "a",
    "=",
    "=~",
    '"x"',
    '"',
    ",",
    "+",
    "-",
    "^",
    " ",
    "\n",
    "#",
    "offset",
    "@",
    ":",
    "0x",
    ".",
]


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_garbage(text: str) -> None:
    """Any text is a query, or an error that tells where."""
    try:
        parse_query(text)
    except QueryError as error:
        line, column, message = str(error).split(":", 2)
        assert 1 <= int(line) <= text.count("\n") + 1
        assert 1 <= int(column) <= len(text) + 1
        assert message.startswith(" parse error: ")
