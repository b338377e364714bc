"""What the server tells of itself and of what there is to ask for."""

import json
from typing import Any

from apiserver import METRICS, Server, make_config, running, series
from attrs import evolve
from prometheus_client.parser import text_string_to_metric_families

from ccstore.model import Aggregation, Metric
from ccstore.server.ledger import OUTCOMES


async def get(server: Server, target: str) -> Any:
    """Ask for JSON."""
    answer = await server.ask("GET", target)
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    return json.loads(answer.body)


async def test_clusters_with_samples() -> None:
    """By name, with their hosts; one of which nothing is left is not listed."""
    async with running() as server:
        assert await get(server, "/api/clusters") == {"clusters": []}
        await server.write(*series("x", "h", [1], cluster="b"), *series("x", "g", [1], cluster="b"))
        await server.write(*series("x", "h", [1], cluster="a"), "x,cluster=c,hostname=h value=1 1800000000")
        assert await get(server, "/api/clusters/") == {
            "clusters": [{"name": "a", "hosts": 1}, {"name": "b", "hosts": 2}]
        }
        await server.ask("POST", "/api/free?to=10000", [["a"], ["b", "g"]])
        assert await get(server, "/api/clusters") == {"clusters": [{"name": "b", "hosts": 1}]}


async def test_the_ledger_is_shown_twice_with_the_same_numbers() -> None:
    """`/api/stats` and `/metrics` agree, and both add up to what was received."""
    async with running() as server:
        await server.write(*series("x", "h", range(10)), *series("x", "h", range(5)), "unknown value=1")
        await server.ask("POST", "/api/write", "x,cluster=c,hostname=h value=x\nx,cluster=c value=1")
        lines = (await get(server, "/api/stats"))["lines"]
        text = (await server.ask("GET", "/metrics")).body.decode()
    (family,) = [family for family in text_string_to_metric_families(text) if family.name == "ccstore_lines"]
    shown = {sample.labels["outcome"]: sample.value for sample in family.samples}
    assert {sample.labels["source"] for sample in family.samples} == set(lines["by_source"]) == {"http"}
    names = [outcome.name.lower() for outcome in OUTCOMES]
    assert [shown[name] for name in names] == [lines[name] for name in names] == [10, 5, 1, 1, 0, 0, 1, 0]
    assert lines["received"] == sum(shown.values()) == 18


async def test_reading_resets_nothing() -> None:
    """A counter that is read goes on from where it was."""
    async with running() as server:
        for count in range(1, 4):
            await server.write(*series("x", f"h{count}", [1]))
            assert (await get(server, "/api/stats"))["lines"]["stored"] == count


async def test_a_cluster_can_have_other_metrics_than_the_rest() -> None:
    """They are told on demand, and lines, queries and health go by them."""
    config = evolve(make_config(), own_metrics={"fast": (Metric("load", 10, Aggregation.SUM, "tasks"),)})
    async with running(config) as server:
        lists = [await get(server, f"/api/metrics{query}") for query in ("", "?cluster=c", "?cluster=fast")]
        load = [next(one for one in shown["metrics"] if one["name"] == "load") for shown in lists]
        assert (
            load[0] == load[1] == {"name": "load", "unit": "threads", "frequency": 60, "aggregation": "avg"}
        )
        assert load[2] == {"name": "load", "unit": "tasks", "frequency": 10, "aggregation": "sum"}
        assert [len(shown["metrics"]) for shown in lists] == [len(METRICS)] * 3
        times = range(600, 661, 10)
        for cluster in ("fast", "c"):
            await server.write(*(f"load,cluster={cluster},hostname=h value=1 {time}" for time in times))
            question = {
                "cluster": cluster,
                "from": 600,
                "to": 700,
                "with-padding": False,
                "for-all-nodes": ["load"],
            }
            ((answer,),) = json.loads(await server.query(question))["results"]
            expected = {"fast": (10, [1.0] * 7), "c": (60, [1.0, 1.0])}[cluster]
            assert (answer["resolution"], answer["data"]) == expected
