"""docs/reference/nats.md is held to the code."""

from pathlib import Path
from typing import get_args

import attrs
import pytest

from ccstore.server.nats import BUDGET_BYTES, NatsStatistics
from ccstore.server.nats_backlog import SEGMENT_BYTES
from ccstore.server.nats_client import DRAIN_SECONDS, STABLE_AFTER
from ccstore.server.nats_link import QUEUE_BYTES, QUEUE_PARTS
from ccstore.server.nats_servers import FIRST_PAUSE, LONGEST_PAUSE
from ccstore.server.nats_statistics import State
from ccstore.wire.nats import MAX_LINE, MAX_PAYLOAD

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "nats.md").read_text(encoding="utf-8")
MIB = 1024 * 1024


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(NatsStatistics)])
def test_every_counter_is_explained(name: str) -> None:
    """Each field of the statistics is in the table of counters."""
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_is_explained(state: str) -> None:
    """Each state has its row."""
    assert f"\n| `{state}` |" in PAGE


@pytest.mark.parametrize(
    "text",
    [
        f"{BUDGET_BYTES // MIB} MiB by default",
        f"whole segments of {SEGMENT_BYTES // MIB} MiB",
        f"up to {FIRST_PAUSE:g} s at first, doubled with each round, at most {LONGEST_PAUSE:g} s",
        f"held for {STABLE_AFTER:g} s",
        f"at most {DRAIN_SECONDS:g} s",
        f"| message, with headers | {MAX_PAYLOAD // MIB} MiB |",
        f"| control line of the broker | {MAX_LINE // 1024} KiB |",
        f"| {QUEUE_BYTES // MIB} MiB or {QUEUE_PARTS:,} pieces |".replace(",", " "),
    ],
)
def test_the_figures_are_those_of_the_code(text: str) -> None:
    """A limit that changes in the code changes on the page."""
    assert text in PAGE
