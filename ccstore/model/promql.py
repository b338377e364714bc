"""The words of the query language: what is left of a query in PromQL once it is parsed.

An expression is a tree of these values. It has at most one selector, because an operator has a vector
on one side at most; so a tree is a chain from a selector up to the result, or there is no selector and it is
a number.
"""

from collections.abc import Callable

from attrs import field, frozen

__all__ = [
    "AGGREGATORS",
    "NAME",
    "OPERATORS",
    "Aggregate",
    "Expression",
    "Matcher",
    "Negation",
    "Number",
    "Operation",
    "Rate",
    "Vector",
    "is_scalar",
]

NAME = "__name__"
"""The label that holds the name of the metric."""

OPERATORS = ("+", "-", "*", "/", "%", "^")
AGGREGATORS = ("sum", "avg", "min", "max", "count")


@frozen
class Matcher:
    """A condition on one label."""

    label: str
    operator: str
    """One of ``=``, ``!=``, ``=~`` and ``!~``."""
    value: str
    """A text, or a regular expression that the whole label has to match."""
    accepts: Callable[[str], bool] = field(eq=False, repr=False)
    """Tells whether a label may have a value; the label that is not there has the empty one."""


@frozen
class Number:
    """A number."""

    value: float


@frozen
class Vector:
    """The series for which all conditions hold, each with its latest value."""

    matchers: tuple[Matcher, ...]


@frozen
class Rate:
    """The increase of each series over a window, per second."""

    vector: Vector
    window_ms: int
    """Milliseconds, at least 1."""


@frozen
class Negation:
    """The operand with the other sign."""

    operand: "Expression"


@frozen
class Operation:
    """Two operands, of which at least one is a scalar."""

    operator: str
    """One of `OPERATORS`."""
    left: "Expression"
    right: "Expression"


@frozen
class Aggregate:
    """The series of a vector combined into one for each combination of labels."""

    function: str
    """One of `AGGREGATORS`."""
    operand: "Expression"
    labels: tuple[str, ...]
    without: bool
    """Whether `labels` are those that do not count, else they are those that do."""


Expression = Number | Vector | Rate | Negation | Operation | Aggregate


def is_scalar(expression: Expression) -> bool:
    """Tell whether an expression is a number and not a vector."""
    match expression:
        case Number():
            return True
        case Negation():
            return is_scalar(expression.operand)
        case Operation():
            return is_scalar(expression.left) and is_scalar(expression.right)
        case _:
            return False
