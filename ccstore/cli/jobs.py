"""The command ``jobs``: the jobs that a scheduler has told of.

Owns the options and the two tables: many jobs, or one. The frame is in `listing`.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from ccstore.cli.client import Client, server_options
from ccstore.cli.figures import amount
from ccstore.cli.listing import age, choices, fetch, list_options, named, show, table
from ccstore.model import JobState

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore jobs                               those that run
  ccstore jobs --all                         those that have ended, too, the newest first
  ccstore jobs --user ann --state failed     those of ann that failed
  ccstore jobs --host a0101                  those on one host
  ccstore jobs 1001                          everything of one job
  ccstore jobs --watch 5                     again every 5 s, until Ctrl-C
"""
_STYLES = {"running": "green", "completed": "", "pending": "cyan", "suspended": "yellow"}
_BAD = "red"
_HOSTS = 3
"""How many hosts of a job are named in a table."""


@click.command("jobs", epilog=_EPILOG)
@click.argument("number", metavar="[JOB]", type=click.IntRange(min=1), required=False)
@named("--cluster", "of these clusters")
@choices("--state", "in these states", [state.value for state in JobState])
@click.option("--all", "every", is_flag=True, help="In all states (default: those that run).")
@named("--user", "of these users")
@named("--project", "of these projects")
@named("--host", "with one of these hosts")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="At most so many, the newest first.",
)
@list_options
@server_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    number: int | None,
    every: bool,
    as_json: bool,
    watch: int | None,
    url: str,
    token: str,
    **filters: Any,
) -> None:
    """Show the jobs that a scheduler has told of, or everything of JOB."""
    if every and filters["state"]:
        ctx.fail("--all with --state (wanted one of them)")
    with Client(url, token=token) as client:
        if number is not None:
            if len(filters["cluster"]) > 1:
                ctx.fail("a JOB with several clusters (wanted one as --cluster NAME)")
            ask = partial(fetch, client, f"/api/jobs/{number}/", {"cluster": filters["cluster"]})
            show(ctx, ask, _draw_job, as_json=as_json, watch=watch)
            return
        if not every and not filters["state"]:
            filters["state"] = (JobState.RUNNING.value,)
        show(ctx, partial(fetch, client, "/api/jobs/", filters), _draw_jobs, as_json=as_json, watch=watch)


def _draw_jobs(answer: Any, limit: int) -> RenderableType:
    jobs = answer["jobs"]
    several = len({job["cluster"] for job in jobs}) > 1
    rows = [
        (
            str(job["jobId"]),
            job["user"],
            job["project"],
            job["cluster"] if several else "",
            job["partition"],
            _state(job),
            _start(job),
            age(job["duration"]),
            age(job["walltime"]) if job["walltime"] else "",
            str(job["numNodes"]),
            _hosts(job["resources"]),
        )
        for job in jobs
    ]
    columns = {
        "job": "right", "user": "left", "project": "left", "cluster": "left", "partition": "left",
        "state": "left", "start": "left", "duration": "right", "walltime": "right", "nodes": "right",
        "hosts": "left",
    }  # fmt: skip
    found = Counter(job["jobState"] for job in jobs)
    title = f"{amount(len(jobs), 'job')}" + "".join(f", {count} {state}" for state, count in found.items())
    return table(title, columns, rows, limit)


def _draw_job(job: Any, limit: int) -> RenderableType:
    facts: Mapping[str, str] = {
        "cluster": " of ".join(filter(None, (job["subCluster"], job["cluster"]))),
        "user": job["user"],
        "project": job["project"],
        "partition": job["partition"],
        "start": _start(job),
        "duration": age(job["duration"]),
        "walltime": age(job["walltime"]) if job["walltime"] else "",
        "shared": job["shared"],
        **{f"meta: {key}": text for key, text in job["metaData"].items()},
        "tags": ", ".join(f"{tag['type']}:{tag['name']}" for tag in job["tags"]),
    }
    rows = [(name, text) for name, text in facts.items() if text]
    for resource in job["resources"]:
        parts = [
            f"{word} {','.join(map(str, resource[key]))}"
            for key, word in (("hwthreads", "threads"), ("accelerators", "accelerators"))
            if resource.get(key)
        ]
        rows.append(("host", " ".join([resource["hostname"], *parts])))
    return table(f"job {job['jobId']}, {job['jobState']}", {"": "left", " ": "left"}, rows, limit)


def _state(job: Mapping[str, Any]) -> Text:
    return Text(job["jobState"], _STYLES.get(job["jobState"], _BAD))


def _start(job: Mapping[str, Any]) -> str:
    begin = datetime.fromtimestamp(job["startTime"])
    is_today = begin.date() == datetime.fromtimestamp(time.time()).date()
    return f"{begin:%H:%M:%S}" if is_today else f"{begin:%Y-%m-%d %H:%M}"


def _hosts(resources: Sequence[Mapping[str, Any]]) -> str:
    names = [resource["hostname"] for resource in resources]
    more = len(names) - _HOSTS
    return " ".join(names[:_HOSTS]) + (f" +{more}" if more > 0 else "")
