"""The command ``check-config``: every mistake of a configuration, or what it means."""

import json

import click

from ccstore.cli import ExitCode, config_option
from ccstore.cli.figures import amount
from ccstore.config import Cluster, dump_config, load_config, make_schema

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore check-config                            ./config.json, or the defaults without it
  ccstore check-config /etc/ccstore/config.json
  ccstore check-config new.json > effective.json  every key with its value
  ccstore check-config --reference config.json    can the reference store take this file?
  ccstore check-config --schema > schema.json     for an editor that completes keys

Mistakes are listed on stderr, one a line, and the exit code is 1. Passwords and tokens are
printed as "***".
"""


@click.command("check-config", epilog=_EPILOG)
@click.argument("path", required=False)
@config_option
@click.option(
    "--reference",
    is_flag=True,
    help="Fail if the reference store would refuse the file or take it differently.",
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the file, and check nothing.")
@click.pass_context
def command(
    ctx: click.Context, path: str | None, config: str | None, reference: bool, schema: bool
) -> ExitCode:
    """Check a configuration and print what it means.

    Prints all keys with their values as JSON that can be loaded again. What the files of clusters say,
    warnings, and notes on what the reference store would refuse or take differently, go to stderr.
    """
    if schema:
        click.echo(json.dumps(make_schema(), indent=2, ensure_ascii=False))
        return ExitCode.OK
    if path is not None and config is not None:
        ctx.fail("path given twice (got PATH and --config, wanted one)")
    loaded = load_config(path if path is not None else config)
    for cluster in loaded.clusters.values():
        click.echo(f"ccstore: {_describe(cluster)}", err=True)
    for warning in loaded.warnings:
        click.echo(f"ccstore: warning: {warning}", err=True)
    for note in loaded.notes:
        click.echo(f"ccstore: note: {note}", err=True)
    click.echo(json.dumps(dump_config(loaded), indent=2, ensure_ascii=False))
    return ExitCode.FAILED if reference and loaded.notes else ExitCode.OK


def _describe(cluster: Cluster) -> str:
    """Return one line: how many metrics and hosts there are, and how many of them where."""
    parts = [
        f"{one.name} {'all others' if one.nodes is None else amount(one.nodes.count, 'host')}"
        for one in cluster.subclusters
    ]
    return f"cluster {cluster.name}: {amount(len(cluster.metrics), 'metric')}; {', '.join(parts)}"
