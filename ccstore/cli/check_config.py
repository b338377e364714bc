"""The command ``check-config``: every mistake of a configuration, or what it means."""

import json

import click

from ccstore.cli import ExitCode, config_option
from ccstore.config import dump_config, load_config

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore check-config                            ./config.json, or the defaults without it
  ccstore check-config /etc/ccstore/config.json
  ccstore check-config new.json > effective.json  every key with its value
  ccstore check-config --reference config.json    can the reference store take this file?

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
@click.pass_context
def command(ctx: click.Context, path: str | None, config: str | None, reference: bool) -> ExitCode:
    """Check a configuration and print what it means.

    Prints all keys with their values as JSON that can be loaded again. Warnings, and notes on what
    the reference store would refuse or take differently, go to stderr.
    """
    if path is not None and config is not None:
        ctx.fail("path given twice (got PATH and --config, wanted one)")
    loaded = load_config(path if path is not None else config)
    for warning in loaded.warnings:
        click.echo(f"ccstore: warning: {warning}", err=True)
    for note in loaded.notes:
        click.echo(f"ccstore: note: {note}", err=True)
    click.echo(json.dumps(dump_config(loaded), indent=2, ensure_ascii=False))
    return ExitCode.FAILED if reference and loaded.notes else ExitCode.OK
