"""What a host measures: the order of its samples, and their values under a load.

Owns the way from a figure of the whole host to one for each of its parts. The figures come from
`quantities`. Invariant: the parts of a metric add up, or average, to what the host as a whole
does, at every level of detail; noise aside.
"""

import enum
from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.cli.site.hardware import NodeType, Scope
from ccstore.cli.site.quantities import QUANTITIES, Formula, Load, Quantity
from ccstore.config import DEFAULT_METRICS
from ccstore.model import Aggregation

__all__ = ["Block", "Detail", "Form", "make_blocks", "measure"]

Floats = NDArray[np.float64]


class Detail(enum.Enum):
    """How finely a host measures itself."""

    HOST = "host"
    """One value for the host wherever that makes sense: some 50 series."""
    USUAL = "usual"
    """As sites do it: a few counters for each thread, the rest for larger parts. Some 400 to 800 series."""
    FULL = "full"
    """What a thread can tell, for each thread. Twice as many."""


class Form(enum.IntEnum):
    """How a number stands in a line; also the order of a host's samples."""

    DECIMAL = 0
    """A few digits before the point, a few behind it."""
    RATE = 1
    """Anything from nothing to very much."""
    INTEGER = 2


_FORMS = {"B/s": Form.RATE, "packets/s": Form.INTEGER, "operations": Form.INTEGER}
"""By unit; all others are decimals."""
_COMPONENTS = {Scope.SOCKET, Scope.MEMORY_DOMAIN, Scope.CORE, Scope.HWTHREAD, Scope.ACCELERATOR}


@frozen
class Block:
    """The samples of one metric among those of a host."""

    quantity: Quantity
    scope: Scope
    form: Form
    start: int
    stop: int
    divided: bool
    """Whether the parts add up to the host, so that each has its share of it."""


def make_blocks(node: NodeType, detail: Detail) -> list[Block]:
    """Return the samples of a host in their order; those of one form stand together."""
    forms = {q: _FORMS.get(DEFAULT_METRICS[q.metric].unit, Form.DECIMAL) for q in QUANTITIES}
    blocks, start = [], 0
    for quantity, form in sorted(forms.items(), key=lambda item: item[1]):
        if quantity.scope is Scope.ACCELERATOR and not node.accelerators:
            continue
        scope = _scope(quantity, detail)
        stop = start + len(node.parts(scope))
        divided = DEFAULT_METRICS[quantity.metric].aggregation is Aggregation.SUM
        blocks.append(Block(quantity, scope, form, start, stop, divided))
        start = stop
    return blocks


def measure(node: NodeType, blocks: Sequence[Block], load: Load, noise: Floats) -> Floats:
    """Return the samples of each host: float64[hosts, samples]; `noise` in [0, 1) has the same shape."""
    values = np.empty_like(noise)
    activity = _activity(node, load)
    for block in blocks:
        quantity, parts = block.quantity, block.stop - block.start
        share: Floats | float = 1.0
        if quantity.active:
            share = activity[block.scope]
        elif block.scope is Scope.PARALLEL_FILESYSTEM:
            share = np.array([parts] + [0] * (parts - 1))  # jobs use the first one only
        level = _evaluate(quantity.idle, node, load) + _evaluate(quantity.extra, node, load) * share
        kept = 1.0 - quantity.jitter * noise[:, block.start : block.stop]
        values[:, block.start : block.stop] = level * (kept / parts if block.divided else kept)
    return values


def _scope(quantity: Quantity, detail: Detail) -> Scope:
    if detail is Detail.HOST and quantity.scope in _COMPONENTS:
        return Scope.NODE
    return quantity.finest if detail is Detail.FULL and quantity.finest is not None else quantity.scope


def _evaluate(formula: Formula, node: NodeType, load: Load) -> Floats | float:
    """Return a figure for all hosts, or a column with one for each."""
    return formula(node, load)[:, None] if callable(formula) else formula


def _activity(node: NodeType, load: Load) -> Mapping[Scope, Floats]:
    """Return how busy the parts of each scope are: float64[hosts, parts], from 0 to 1.

    Threads are taken in their order, which is that of Linux: the second threads of all cores come
    after the first ones.
    """
    order = np.arange(node.threads)
    threads = np.clip(load.threads[:, None] * node.threads - order, 0.0, 1.0)
    threads *= 1.0 - load.imbalance[:, None] * (order / node.threads)
    cores = threads.reshape(len(threads), node.smt, -1).mean(axis=1)
    return {
        Scope.HWTHREAD: threads,
        Scope.CORE: cores,
        Scope.MEMORY_DOMAIN: cores.reshape(len(cores), node.memory_domains, -1).mean(axis=2),
        Scope.SOCKET: cores.reshape(len(cores), node.sockets, -1).mean(axis=2),
        Scope.NODE: threads.mean(axis=1, keepdims=True),
    }
