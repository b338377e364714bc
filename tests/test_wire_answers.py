"""Numbers in answers: fixed decimals, rounded as the reference store does."""

import json
import math
import struct
from collections.abc import Sequence
from operator import truediv

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wire_answers import INF, NAN, as_text, window, write
from wire_lines import thorough

from ccstore.model import QueryRequest

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


def check_numbers(values: Sequence[float]) -> None:
    """Check the text of values and of statistics."""
    text = write([values])
    data, _, rest = text.removeprefix('[{"data":[').partition("]")
    assert [as_text(value, 3) for value in values] == data.split(",")
    stats = window([values]).stats[0].tolist()
    average, least, largest = (as_text(value, 2) for value in stats)
    expected = f',"from":600,"to":{600 + 60 * len(values)},"resolution":60,'
    assert expected + f'"avg":{average},"min":{least},"max":{largest}}}]' == rest


bit_patterns = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0])
near_ties = st.builds(
    lambda n, scale, towards: math.nextafter(n / scale, towards),
    st.integers(-(10**9), 10**9),
    st.sampled_from([2000, 200, 1000, 16, 1024, 3]),
    st.sampled_from([-math.inf, 0.0, math.inf]),
) | st.builds(truediv, st.integers(-(10**9), 10**9), st.sampled_from([2000, 200, 1000, 16, 1024, 3]))
powers = st.builds(
    lambda n, sign, by: sign * (10.0**n + by),
    st.integers(-5, 25),
    st.sampled_from([1, -1]),
    st.sampled_from([0, -0.0005, 0.0005, -0.0004999, 0.5, -1e-9]),
)
numbers = st.floats() | bit_patterns | near_ties | powers | st.floats(width=32)


@thorough
@given(st.lists(numbers, min_size=1, max_size=40))
@example([0.0005, 0.005, 2.675, 1e20, -0.0001, 2.0, 1 / 3, -0.0, 0.126, 999.9995, 0.9995])
@example([99_998.9995, 99_999.0, 99_998.9999, 99_999.9996, 999_999.9996, 9.9995, 99.995, 99_999_999.9999])
@example([2.0**63, 2.0**63 - 1024, 2.0**64, 1.7976931348623157e308, 5e-324, -5e-324, 2.0**53 + 2, 1e16, 1e15])
@example([0.0005, 0.0015, 0.0025, 0.125, 0.375, 0.0625, 1.0625, 4.5e15 + 0.5])
def test_numbers_of_all_kinds(values: list[float]) -> None:
    """Values have three decimals and statistics two, rounded from the exact value, ties to even."""
    check_numbers(values)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0005, "0.001"), (2.675, "2.675"), (1e20, "100000000000000000000.000"), (2.0, "2.000"),
        (1 / 3, "0.333"), (-0.0, "-0.000"), (-0.0001, "-0.000"), (NAN, "null"), (INF, "null"), (-INF, "null"),
        (0.0625, "0.062"), (0.1875, "0.188"),
    ],
)  # fmt: skip
def test_values(value: float, text: str) -> None:
    """The formats of the contract."""
    assert f'[{{"data":[{text}],' == write([[value]])[: len(text) + 12]


@pytest.mark.parametrize(
    ("value", "text"), [(0.005, "0.01"), (2.675, "2.67"), (2.126, "2.13"), (-0.001, "-0.00"), (0.125, "0.12")]
)
def test_statistics(value: float, text: str) -> None:
    """The formats of the contract."""
    assert (
        f'"avg":{text},"min":{text},"max":{text}}}]'
        == write([[value]]).partition("60,")[2].partition("60,")[2]
    )


def test_many_numbers() -> None:
    """A hundred thousand numbers of the usual kind."""
    chance = np.random.default_rng(9)
    values = np.concatenate([chance.random(20_000) * scale for scale in (1, 100, 1e4, 1e6, 1e12)]).astype(
        np.float32
    )
    check_numbers(values.astype(np.float64).tolist())


@pytest.mark.parametrize("with_stats", [True, False])
@pytest.mark.parametrize("value", [3e38, -1.7e308, 1e19, NAN, 12345.678])
def test_long_rows_of_long_numbers(value: float, with_stats: bool) -> None:
    """Room is made for what is written, however long the numbers are, with or without statistics."""
    request = QueryRequest(start=0, with_stats=with_stats)
    text = write([[value] * 1500, [1.0], [value] * 300], request)
    number = as_text(value, 3)
    lists = text.split('"data":')
    assert "[" + ",".join(["null"] * 10 + [number] * 1500) + "]" == lists[1].partition(',"from"')[0]
    assert "[" + ",".join(["null"] * 10 + [number] * 300) + "]" == lists[3].partition(',"from"')[0]
    assert len(json.loads(text.partition("],[")[0] + "]")) == 1
