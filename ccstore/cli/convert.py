"""The command ``convert``: a directory of checkpoints in another format."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from ccstore.cli import ExitCode, config_option
from ccstore.cli.figures import amount, bytes_of, reading
from ccstore.config import load_config
from ccstore.disk.conversion import FORMATS, Conversion, check_target, convert_directory
from ccstore.disk.files import lock_directory
from ccstore.disk.holdings import Frequencies
from ccstore.errors import ConfigError

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore convert var/checkpoints --to columnar                  into var/checkpoints.columnar
  ccstore convert var/checkpoints --to wal --out /srv/old-store  for the reference store
  ccstore convert var/checkpoints --to columnar --config /etc/ccstore/config.json

DIR is the directory that checkpoints.directory of the configuration names, of a server that is stopped. It
may have files of any format, and is not changed. The new directory is like that after a clean stop:
checkpoints alone, as what the logs hold is put into them.

A log of the reference's format does not tell how far apart the samples of a metric are. That is taken
from the configuration, or else from a checkpoint of the same host.

\b
Exit codes: 0 all of it is converted; 1 nothing is, or something could not be read. Then each loss is
a line on stderr, and if the new directory is there, a line on stdout says so.
"""


@click.command("convert", epilog=_EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(FORMATS), required=True, help="The format of the new directory.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The new directory, which is missing or empty (default: beside DIR, as DIR.columnar).",
)
@config_option
def command(directory: Path, to: str, out: Path | None, config: str | None) -> ExitCode:
    """Write a checkpoint directory anew in another format.

    The new directory appears when it is complete and was read again without a difference.
    """
    source = Path(os.path.normpath(directory))
    target = out if out is not None else source.with_name(f"{source.name}.{to}")
    check_target(source, target)
    frequencies = _load_frequencies(config)
    try:
        with _stopped(source), reading() as show:
            done = convert_directory(
                source, target, to=to, frequencies=frequencies, now=int(time.time()), advance=show
            )
    except OSError as error:
        where = error.filename if error.filename is not None else target
        raise ConfigError(f"{where}: {error.strerror or error}") from error
    return _report(done, target)


def _load_frequencies(config: str | None) -> Frequencies:
    """Return who tells the seconds of each metric; none without a configuration."""
    if config is None and not Path("config.json").exists():
        return lambda _cluster: {}
    loaded = load_config(config)
    return lambda cluster: {name: one.frequency for name, one in loaded.metrics_of(cluster).items()}


@contextmanager
def _stopped(directory: Path) -> Iterator[None]:
    """Keep servers out of a directory. Raises ConfigError if one has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_directory(directory))
        except ConfigError as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise ConfigError(f"{directory}: in use by a running server (stop it first)") from error
            raise
        yield


def _report(done: Conversion, target: Path) -> ExitCode:
    for problem in done.problems:
        click.echo(f"ccstore: {problem}", err=True)
    what = ", ".join((amount(done.hosts, "host"), f"{done.series} series", amount(done.values, "value")))
    click.echo(f"{target}: {what} in {amount(done.files, 'file')} ({bytes_of(done.bytes)})")
    replaced = done.values_read - done.values
    if replaced > 0 and not done.problems:  # else nobody knows which of them are lost
        verb = "is" if replaced == 1 else "are"
        click.echo(f"{amount(replaced, 'value')} {verb} left out: a later one of the same slot counts")
    return ExitCode.FAILED if done.problems else ExitCode.OK
