"""PromQL: from the text of a query to an expression, for a part of the language.

What it takes: selectors, `rate`, arithmetic of which at least one side is a number, and sums, averages,
extremes and counts. Everything else that Prometheus knows is refused by name, so that nobody takes an answer
for one to another question. Every error tells line and column.

Invariant: the work is linear in the length of the text, and an expression is so small that walking it by
recursion is safe. So what a client sends costs nobody else anything. Regular expressions are those of
RE2, like Prometheus': no pattern takes more than linear time.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import re2

from ccstore.errors import QueryError
from ccstore.model.promql import (
    AGGREGATORS,
    NAME,
    OPERATORS,
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

__all__ = ["parse_duration", "parse_query", "parse_selector"]

_MAX_LENGTH = 1 << 16  # characters of a query; Grafana lists hundreds of hosts in one
_MAX_PARTS = 100
"""Operators, calls and parentheses of a query, which bounds the depth of recursion."""
_PATTERN_BYTES = 4 << 20  # memory that one regular expression may take
_MAX_MS = 2**53  # beyond, a float has no milliseconds

# No alternative matches what another one matches, and none backtracks.
_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]++|\#[^\r\n]*+)
  | (?P<duration>(?:[0-9]++(?:ms|[smhdwy]))++(?![A-Za-z0-9_.]))
  | (?P<number>(?:0[xX][0-9a-fA-F]++|(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)
      (?![A-Za-z0-9_.:]))
  | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*+)
  | (?P<string>"(?:[^"\\\n]|\\[^\n])*+"|'(?:[^'\\\n]|\\[^\n])*+'|`[^`]*+`)
  | (?P<symbol>=~|!~|!=|==|>=|<=|[-+*/%^=<>(){}\[\],:@])
    """,
    re.VERBOSE,
)
_LABEL = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_DURATION = re.compile("".join(f"(?:([0-9]++){unit})?" for unit in ("y", "w", "d", "h", "m", "s", "ms")))
_UNITS = (365 * 86_400_000, 7 * 86_400_000, 86_400_000, 3_600_000, 60_000, 1000, 1)  # ms
_ESCAPE = re.compile(
    rb"""\\(?:([abfnrtv\\'"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)""",
    re.DOTALL,
)
_ESCAPED = dict(zip(b"abfnrtv\\'\"", b"\a\b\f\n\r\t\v\\'\"", strict=True))
_META = re.compile(r"[.+*?()\[\]{}^$\\]")

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 3}
_POWER = 3
_REFUSED = frozenset({"==", "!=", ">", "<", ">=", "<=", "=", "=~", "!~", "@", ":"})
_REFUSED_WORDS = frozenset({"and", "or", "unless", "atan2", "offset", "bool", "on", "ignoring"})
_NUMBERS = {"inf": math.inf, "nan": math.nan}


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse_query(text: str) -> Expression:
    """Parse a query. Raises QueryError, with line and column."""
    return _Parser(text).query()


def parse_selector(text: str) -> Vector:
    """Parse a query that is a selector and nothing else. Raises QueryError."""
    expression = parse_query(text)
    if not isinstance(expression, Vector):
        raise QueryError("1:1: parse error: not a selector (wanted conditions on series alone)")
    return expression


def parse_duration(text: str) -> int:
    """Return the milliseconds of a duration such as ``1h30m``; 0 if it is none, or too long."""
    found = _DURATION.fullmatch(text)
    if found is None or len(text) > 100:
        return 0
    total = sum(int(count or 0) * unit for count, unit in zip(found.groups(), _UNITS, strict=True))
    return total if total <= _MAX_MS else 0


class _Parser:
    """Recursive descent, with one token of sight."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._parts = 0
        if len(text) > _MAX_LENGTH:
            raise QueryError(f"1:1: parse error: {len(text)} characters (wanted at most {_MAX_LENGTH})")
        self._tokens = self._split()
        self._next = 0

    def query(self) -> Expression:
        if self._token.kind == "end":
            raise self._error("no expression")
        expression = self._expression(1)
        if self._token.kind != "end":
            raise self._refusal(self._token)
        return expression

    # --- tokens

    def _split(self) -> list[_Token]:
        tokens, at, text = [], 0, self._text
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._error(self._explain(at), at)
            if found.lastgroup != "space":
                tokens.append(_Token(str(found.lastgroup), found[0], at))
            at = found.end()
        return [*tokens, _Token("end", "end of the query", len(text))]

    def _explain(self, at: int) -> str:
        character = self._text[at]
        if character in "\"'`":
            return "string without closing quote"
        return (
            "bad number or duration" if character in "0123456789" else f"unexpected character {character!r}"
        )

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        self._next += token.kind != "end"
        return token

    def _is(self, symbol: str) -> bool:
        return self._token.kind == "symbol" and self._token.text == symbol

    def _skip(self, symbol: str) -> bool:
        found = self._is(symbol)
        self._next += found
        return found

    def _expect(self, symbol: str, where: str) -> None:
        if not self._skip(symbol):
            raise self._error(f"{_shorten(self._token.text)!r} {where} (wanted {symbol!r})")

    def _count(self, at: int) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise self._error(f"more than {_MAX_PARTS} operators, calls and parentheses", at)

    def _error(self, what: str, at: int | None = None) -> QueryError:
        at = self._token.at if at is None else at
        line, begin = self._text.count("\n", 0, at) + 1, self._text.rfind("\n", 0, at) + 1
        return QueryError(f"{line}:{at - begin + 1}: parse error: {what}")

    def _refusal(self, token: _Token) -> QueryError:
        """Return that a token cannot stand here: because nothing of its kind is supported, or at all."""
        if token.text in _REFUSED or token.text.lower() in _REFUSED_WORDS:
            wanted = " ".join(OPERATORS)
            return self._error(f"{token.text!r} is not supported (wanted one of {wanted})", token.at)
        return self._error(f"unexpected {_shorten(token.text)!r}", token.at)

    # --- expressions

    def _expression(self, lowest: int) -> Expression:
        """Parse operands with the operators between them that bind at least as tightly as `lowest`."""
        left = self._operand()
        while self._token.kind == "symbol" and _PRECEDENCE.get(self._token.text, 0) >= lowest:
            operator = self._take()
            self._count(operator.at)
            if self._token.text.lower() in _REFUSED_WORDS:
                raise self._refusal(self._token)
            level = _PRECEDENCE[operator.text]
            right = self._expression(level if level == _POWER else level + 1)  # only ^ groups from the right
            if not (is_scalar(left) or is_scalar(right)):
                raise self._error(
                    f"{operator.text!r} between two vectors is not supported (wanted a number on one side)",
                    operator.at,
                )
            left = Operation(operator.text, left, right)
        return left

    def _operand(self) -> Expression:
        token = self._take()
        if token.kind == "symbol" and token.text in "+-":
            self._count(token.at)
            operand = self._expression(_POWER)
            return Negation(operand) if token.text == "-" else operand
        if token.kind == "symbol" and token.text == "(":
            self._count(token.at)
            inner = self._expression(1)
            self._expect(")", "behind an expression")
            return inner
        if token.kind == "number":
            return Number(_number(token.text))
        if token.kind == "name" or (token.kind == "symbol" and token.text == "{"):
            return self._named(token)
        if token.kind == "string":
            raise self._error("a string is not supported (wanted a number or a vector)", token.at)
        raise self._refusal(token)

    def _named(self, token: _Token) -> Expression:
        """Parse what begins with a name, or with the brace of a selector without one."""
        word = token.text.lower()
        if word in AGGREGATORS and (self._is("(") or self._token.text.lower() in ("by", "without")):
            return self._aggregate(token, word)
        if self._is("(") and token.kind == "name":
            if token.text != "rate":
                wanted = ", ".join(("rate", *AGGREGATORS))
                raise self._error(
                    f"{_shorten(token.text)}() is not supported (wanted one of {wanted})", token.at
                )
            return self._rate(token)
        if word in _NUMBERS:
            return Number(_NUMBERS[word])
        vector = self._vector(token)
        if self._is("["):
            raise self._error("a range is not supported here (wanted it as the argument of rate)")
        return vector

    def _aggregate(self, token: _Token, function: str) -> Expression:
        self._count(token.at)
        grouping = self._grouping()
        self._expect("(", f"behind {function}")
        begin = self._token.at
        operand = self._expression(1)
        if self._is(","):
            raise self._error(f"{function} takes one argument")
        self._expect(")", "behind an expression")
        if is_scalar(operand):
            raise self._error(f"{function} of a number (wanted a vector)", begin)
        labels, without = grouping or self._grouping() or ((), False)
        return Aggregate(function, operand, labels, without)

    def _grouping(self) -> tuple[tuple[str, ...], bool] | None:
        word = self._token.text.lower()
        if self._token.kind != "name" or word not in ("by", "without"):
            return None
        self._take()
        self._expect("(", f"behind {word}")
        labels: list[str] = []
        while not self._skip(")"):
            if labels:
                self._expect(",", "in a list of labels")
                if self._skip(")"):
                    break
            token = self._take()
            if token.kind != "name" or not _LABEL.fullmatch(token.text):
                raise self._error(f"{_shorten(token.text)!r} in a list of labels (wanted a label)", token.at)
            labels.append(token.text)
        return tuple(dict.fromkeys(labels)), word == "without"

    def _rate(self, token: _Token) -> Expression:
        self._count(token.at)
        self._expect("(", "behind rate")
        begin = self._take()
        if begin.kind != "name" and begin.text != "{":
            raise self._error("rate takes a range selector (wanted such as flops_any[5m])", begin.at)
        vector = self._vector(begin)
        self._expect("[", "in rate, which takes a range")
        window = self._take()
        milliseconds = parse_duration(window.text)
        if window.kind == "number":
            milliseconds = int(min(1000 * _number(window.text), _MAX_MS))
        if window.kind not in ("duration", "number") or milliseconds < 1:
            raise self._error(f"range {_shorten(window.text)!r} (wanted a duration such as 5m)", window.at)
        if self._token.text.startswith(":"):  # which may begin a name as well
            raise self._error("a subquery is not supported")
        self._expect("]", "behind a duration")
        if self._token.text.lower() in _REFUSED_WORDS or self._is("@"):
            raise self._refusal(self._token)
        self._expect(")", "behind a range")
        return Rate(vector, milliseconds)

    # --- selectors

    def _vector(self, token: _Token) -> Vector:
        """Parse a selector of which one token, a name or a brace, is taken already."""
        matchers: list[Matcher] = []
        if token.kind == "name":
            matchers.append(self._matcher(NAME, "=", token.text, token.at))
        if token.text == "{" or self._skip("{"):
            while not self._skip("}"):
                matchers.append(self._condition())
                if not self._is("}"):
                    self._expect(",", "in a selector")
        names = [m.value for m in matchers if (m.label, m.operator) == (NAME, "=")]
        if token.kind == "name" and len(names) > 1:
            raise self._error(
                f"metric name must not be set twice: {names[0]!r} or {_shorten(names[1])!r}", token.at
            )
        if all(matcher.accepts("") for matcher in matchers):
            raise self._error("vector selector must contain at least one non-empty matcher", token.at)
        return Vector(tuple(matchers))

    def _condition(self) -> Matcher:
        """Parse one condition: label, operator, string; or a string alone, the name of the metric."""
        token = self._take()
        if token.kind == "string":
            name = self._string(token)
            if self._is(",") or self._is("}"):
                return self._matcher(NAME, "=", name, token.at)
        elif token.kind == "name" and _LABEL.fullmatch(token.text):
            name = token.text
        else:
            raise self._error(f"{_shorten(token.text)!r} in a selector (wanted a label)", token.at)
        operator = self._take()
        if operator.text not in ("=", "!=", "=~", "!~"):
            raise self._error(
                f"{_shorten(operator.text)!r} behind a label (wanted = != =~ or !~)", operator.at
            )
        value = self._take()
        if value.kind != "string":
            raise self._error(f"{_shorten(value.text)!r} behind an operator (wanted a string)", value.at)
        return self._matcher(name, operator.text, self._string(value), value.at)

    def _matcher(self, label: str, operator: str, value: str, at: int) -> Matcher:
        try:
            return Matcher(label, operator, value, _predicate(operator, value))
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if error.args else "not understood"
            raise self._error(f"regular expression: {reason}", at) from error

    def _string(self, token: _Token) -> str:
        inside = token.text[1:-1]
        if token.text[0] == "`" or "\\" not in inside:
            return inside
        try:
            return _ESCAPE.sub(_unescape, inside.encode()).decode()
        except (ValueError, OverflowError):  # the first covers what is no UTF-8
            raise self._error("bad escape in a string", token.at) from None


def _number(text: str) -> float:
    return float(int(text, 16)) if text[:2] in ("0x", "0X") else float(text)


def _unescape(found: re.Match[bytes]) -> bytes:
    """Return the bytes that an escape stands for. Raises ValueError or OverflowError if there are none."""
    simple, octal, byte, short, long = found.groups()
    if simple:
        return bytes([_ESCAPED[simple[0]]])
    if octal or byte:
        return bytes([int(octal, 8) if octal else int(byte, 16)])
    if short or long:
        return chr(int(short or long, 16)).encode()
    raise ValueError(found[0])


def _predicate(operator: str, value: str) -> Callable[[str], bool]:
    """Return what tells whether a label fulfils a condition. Raises re2.error."""
    if operator in ("=", "!="):
        return value.__eq__ if operator == "=" else value.__ne__
    matches = _pattern(value)
    return matches if operator == "=~" else lambda text: not matches(text)


def _pattern(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a whole text matches a regular expression. Raises re2.error."""
    if not _META.search(pattern):
        return frozenset(pattern.split("|")).__contains__  # a list of names, which can be long
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.never_capture = True
    options.max_mem = _PATTERN_BYTES
    compiled = re2.compile(pattern, options)
    re2.purge()  # it would remember the last 128
    return lambda text: compiled.fullmatch(text) is not None


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
