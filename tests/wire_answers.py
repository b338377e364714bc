"""Windows of made-up rows, and the text of an answer that holds them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import evolve

from ccstore.model import QueryRequest, Status, Window
from ccstore.wire.query import AnswerWriter

INF = float("inf")
NAN = float("nan")


def window(rows: Sequence[Sequence[float]], *, status: Sequence[Status] | None = None) -> Window:
    """Return a window of some rows, whose statistics are just their first, least and largest value."""
    count = len(rows)
    stats = [
        [row[0], np.nanmin(row), np.nanmax(row)] if len(row) and not np.isnan(row).all() else [NAN] * 3
        for row in rows
    ]
    return Window(
        values=np.array([value for row in rows for value in row], np.float64),
        ends=np.cumsum([len(row) for row in rows], dtype=np.int64),
        begins=np.full(count, 600, np.int64),
        stops=np.array([600 + 60 * len(row) for row in rows], np.int64),
        resolutions=np.full(count, 60, np.int64),
        statuses=np.array(status or [Status.GOOD] * count, np.int8),
        stats=np.array(stats, np.float64).reshape(-1, 3),
    )  # fmt: skip


def write(rows: Sequence[Sequence[float]], request: QueryRequest | None = None, **options: Any) -> str:
    """Return the answer with some rows, each of a query of its own."""
    request = evolve(request or QueryRequest(start=600), stop=9999, for_all_nodes=("m",))
    writer = AnswerWriter(request, ["h"] * len(rows), **options)
    b"".join(writer.begin())
    text = writer.rows(window(rows), ["m"] * len(rows), np.arange(len(rows)), np.zeros(len(rows), np.bool_))
    return (text + writer.end()).decode().removesuffix("]}")


def as_text(value: float, decimals: int) -> str:
    """Return a number as it is to be written; Python rounds the exact value, ties to even, as is wanted."""
    return f"{value:.{decimals}f}" if abs(value) < INF else "null"
