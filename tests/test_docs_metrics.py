"""docs/reference/metrics.md is held to what the server tells."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from service_tools import NOW, fill, lines, make_config, with_store

from ccstore.config.sections import ApiSubjects, NodestateRetention
from ccstore.disk.files import OsDisk
from ccstore.model import Outcome
from ccstore.server import upkeep
from ccstore.server.ledger import OUTCOMES
from ccstore.server.loopwatch import LONG
from ccstore.server.metrics import describe, encode_stats
from ccstore.server.services import Services, make_services
from ccstore.wire.events import EventOutcome

EVENT_OUTCOMES = "|".join(outcome.value for outcome in EventOutcome)
BY_OUTCOME = "by_source.<source>.<event outcome>"
JOBS = "retention|checkpoint|log|memory|commit_jobs|durations|node_states|walltimes"
PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading, without its head."""
    section = re.split(r"^#+ ", PAGE.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


async def busy() -> Services:
    """Make the parts of a server in which there is at least one of everything."""
    config = with_store(make_config("nats://127.0.0.1:1", {"hpc": ""}), memory_cap_bytes=10**9)
    main = evolve(
        config.main, api_subjects=ApiSubjects("a", "b"), nodestate_retention=NodestateRetention(),
        stop_jobs_exceeding_walltime=1,
    )  # fmt: skip
    config = evolve(config, main=main)
    services = make_services(config, now=lambda: NOW, disk=OsDisk())
    assert services.wal is not None
    async with trio.open_nursery() as nursery:
        for shard in services.wal.shards:
            nursery.start_soon(services.wal.write, shard)
        upkeep.start(nursery, services)
        await fill(services, lines(["h1"], cluster="birch"))
        services.events.count("http", "job", EventOutcome.DONE)
        services.traffic.enter("/api/write", 200, 0.1)
        nursery.cancel_scope.cancel()
    return services


async def test_every_metric_is_in_the_table_and_the_other_way_round() -> None:
    """Names, types, and the unit that a name ends with."""
    families = {
        (f"ccstore_{f.name}{'_total' if f.kind == 'counter' else ''}", f.kind) for f in describe(await busy())
    }
    rows = table("/metrics")
    assert {(name, kind) for name, kind, *_ in rows} == families
    assert len(rows) == len(families)
    for name, _, unit, meaning, _ in rows:
        assert meaning
        for ending in ("seconds", "bytes", "lines", "messages", "chunks", "hosts"):
            if name.removesuffix("_total").endswith(f"_{ending}") and name != "ccstore_hosts":
                assert unit == ending


def keys(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the type of each value."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "list of strings"}
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from keys(inner, f"{path}{key}.")
        else:
            yield path + key, names[list if isinstance(inner, tuple) else type(inner)]


async def test_every_key_of_the_statistics_is_there_and_the_other_way_round() -> None:
    """A key has its row, or is the number of a metric."""
    services = await busy()
    found = dict(keys(encode_stats(services)))
    documented = dict(row[:2] for row in table("/api/stats"))
    numbers = {
        family.name.replace("nats_", "nats.", 1) for family in describe(services) if family.number is not None
    }
    outcomes = "|".join(outcome.name.lower() for outcome in OUTCOMES)
    used = set()
    for path, kind in found.items():
        general = re.sub(rf"\.({outcomes})$", ".<outcome>", path)
        general = re.sub(r"^lines\.by_source\.(http|nats)", "lines.by_source.<source>", general)
        general = re.sub(rf"by_source\.(http|nats)\.({EVENT_OUTCOMES})", BY_OUTCOME, general)
        general = re.sub(r"^events\.(job|node)", "events.<kind>", general)
        general = re.sub(r"^routes\.[^.]+", "routes.<route>", general)
        general = re.sub(r"^shards\.\d+", "shards.<shard>", general)
        general = re.sub(
            r"^jobs\.(retention|checkpoint|log|memory|commit_jobs|durations|node_states|walltimes)\.",
            "jobs.<job>.",
            general,
        )
        assert (documented.get(general) == kind) or path in numbers, path
        used.add(general)
    assert documented.keys() <= used


def test_every_outcome_of_an_event_is_explained() -> None:
    """Each has its row, and no other has one."""
    assert [row[0] for row in table("Outcomes of events")] == [outcome.value for outcome in EventOutcome]


@pytest.mark.parametrize("outcome", [outcome.name.lower() for outcome in Outcome if outcome.name != "BLANK"])
def test_every_outcome_is_explained(outcome: str) -> None:
    """Each outcome has its row, and no other has one."""
    assert outcome in [row[0] for row in table("Outcomes")]
    assert len(table("Outcomes")) == len(OUTCOMES)


async def test_every_problem_is_explained() -> None:
    """Each reason for not being ready has its row."""
    services = await busy()
    services.over_cap = services.nats.is_dropping = True
    services.nats.refused_subjects = ("hpc",)
    durability = services.durability
    assert durability is not None
    durability.wal.shards[0].trouble = "no space left"
    explained = tuple(row[0].removesuffix("...") for row in table("Why it is not ready"))
    for state in ("connecting", "closed"):
        services.nats.state = state  # type: ignore[assignment]
        for recovered in (True, False):
            durability.recovered = trio.Event()
            if recovered:
                durability.recovered.set()
            services.events.nats.state = state  # type: ignore[assignment]
            services.events.nats.refused_subjects = ("hpc.jobs",)
            services.registry.trouble = "locked"
            assert len(services.problems()) == 8
            assert [found for found in services.problems() if not found.startswith(explained)] == []


def test_the_figures_are_those_of_the_code() -> None:
    """A limit that changes in the code changes on the page."""
    assert f"held it for more than {LONG * 1000:.0f} ms" in PAGE
