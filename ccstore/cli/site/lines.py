"""Line protocol in bulk: the lines of a group of hosts, as their collectors would write them.

Owns the bytes: tags sorted by key, numbers in their shortest form, LF at the end. Computes no value.
Invariant: a decimal has at most four digits behind its point, and a rate at most four digits above
a million; so each text is the shortest one of the float64 that it names.

Lines differ in length, and numpy's rows do not. So a line is a record of fixed fields, filled up
with NUL bytes; the digits are looked up in tables; and at the end all NUL bytes are taken out.
That costs about 150 ns a line, nearly all of it for copying. Formatting one number in Python costs more.
"""

import functools
from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.cli.site.hardware import NodeType
from ccstore.cli.site.metrics import Block, Form

__all__ = ["LineWriter", "encode_numbers"]

Floats = NDArray[np.float64]
Texts = NDArray[np.bytes_]

_HALF = 10_000
"""A number is written in two halves of up to four digits, each from a table."""
_POWERS = range(6, 13)
"""Of ten, that numbers may have behind an ``e``; Go writes one from a million on."""
_LONGEST_TIME = len(" 1234567890123456789\n")


@frozen
class _Tables:
    """Texts of halves of numbers."""

    whole: Texts
    """S4[10 000]: the first half, 0 to 9999."""
    rest: Texts
    """S8: the second half, in one of the forms that begin at the places below."""


_FRACTION = 0
"""0.0000 to 0.9999 without zeros at the end: ``.25``, or nothing."""
_CENTS = _HALF
"""00.00 to 99.99: two digits, then as above."""
_INTEGER = 2 * _HALF
"""0000 to 9999 with an ``i`` behind."""
_SHORT_INTEGER = 3 * _HALF
"""An ``i``."""
_POWER = 3 * _HALF + 1
"""0.000 to 0.999 as above with ``e+06`` behind, then the same with ``e+07``, and so on."""


@functools.cache
def _tables() -> _Tables:
    fractions = [f"{number / _HALF:.4f}".rstrip("0").removesuffix(".")[1:] for number in range(_HALF)]
    cents = [f"{number // 100:02d}{fractions[number % 100 * 100]}" for number in range(_HALF)]
    integers = [f"{number:04d}i" for number in range(_HALF)]
    powers = [f"{fractions[number * 10]}e+{power:02d}" for power in _POWERS for number in range(1000)]
    whole = [str(number) for number in range(_HALF)]
    return _Tables(np.array(whole, "S4"), np.array([*fractions, *cents, *integers, "i", *powers], "S8"))


def encode_numbers(values: Floats, form: Form) -> tuple[Texts, Texts]:
    """Return the first half (S4) and the rest (S8) of the text of each value; their fillers are NUL bytes.

    Values are at least 0 and below 1e4 (decimals), 1e13 (rates) or 1e8 (integers).
    """
    tables = _tables()
    if form is Form.INTEGER:
        whole, rest = np.divmod(np.rint(values).astype(np.int64), _HALF)
        large = whole > 0
        first = np.where(large, whole, rest)
        return tables.whole[first], tables.rest[np.where(large, _INTEGER + rest, _SHORT_INTEGER)]
    if form is Form.DECIMAL:
        whole, rest = np.divmod(np.rint(values * _HALF).astype(np.int64), _HALF)
        return tables.whole[whole], tables.rest[rest]
    whole, rest = _split_rates(values)
    return tables.whole[whole], tables.rest[rest]


def _split_rates(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of both halves in the tables."""
    small, middle = values < 9999.99995, values < 999_999.995
    power = np.floor(np.log10(np.maximum(values, 1e6)))
    digits = np.rint(values / 10.0 ** (power - 3))
    carried = digits == _HALF  # rounded up to the next power of ten
    digits[carried], power[carried] = 1000, power[carried] + 1
    number = np.where(small, np.rint(values * _HALF), np.where(middle, np.rint(values * 100), digits))
    whole, rest = np.divmod(number.astype(np.int64), np.where(middle, _HALF, 1000))
    first = np.where(small, _FRACTION, np.where(middle, _CENTS, _POWER + 1000 * (power.astype(np.int64) - 6)))
    return whole, first + rest


class LineWriter:
    """Writes the lines of up to `most_hosts` hosts of one type at a time."""

    def __init__(
        self, node: NodeType, blocks: Sequence[Block], cluster: str, *, most_hosts: int, longest_host: int
    ) -> None:
        self._forms = [
            (
                form,
                min(b.start for b in blocks if b.form is form),
                max(b.stop for b in blocks if b.form is form),
            )
            for form in Form
        ]
        self._cluster = cluster
        _tables()  # now and not in the middle of the first message
        metrics = [block.quantity.metric for block in blocks for _ in node.tags(block.scope)]
        places = [f"{tags} value=" for block in blocks for tags in node.tags(block.scope)]
        fields = [
            ("metric", f"S{max(map(len, metrics))}"),
            ("host", f"S{len(f',cluster={cluster},hostname=') + longest_host}"),
            ("place", f"S{max(map(len, places))}"),
            ("whole", "S4"),
            ("rest", "S8"),
            ("time", f"S{_LONGEST_TIME}"),
        ]
        self._records = np.zeros((most_hosts, len(metrics)), fields)
        self._records["metric"] = [metric.encode() for metric in metrics]
        self._records["place"] = [place.encode() for place in places]

    def write(self, hosts: Sequence[str], values: Floats, times: Sequence[int]) -> list[bytes]:
        """Return the lines of each host; `values` are float64[hosts, samples], `times` in whatever unit."""
        records = self._records[: len(hosts)]
        tags = [f",cluster={self._cluster},hostname={host}".encode() for host in hosts]
        records["host"] = np.array(tags)[:, None]
        for form, start, stop in self._forms:
            whole, rest = encode_numbers(values[:, start:stop], form)
            records["whole"][:, start:stop], records["rest"][:, start:stop] = whole, rest
        records["time"] = np.array([f" {time}\n".encode() for time in times])[:, None]
        return [record.tobytes().translate(None, b"\0") for record in records]
