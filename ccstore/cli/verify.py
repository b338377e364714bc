"""The command ``verify``: whether all of a directory can be read, and what it holds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ccstore.cli import ExitCode
from ccstore.cli.figures import (
    amount,
    bytes_of,
    cannot_read,
    describe_damage,
    grouped,
    plain_table,
    reading,
    time_of,
)
from ccstore.cli.inspect import damage_as_json
from ccstore.disk.verification import Group, Verification, is_in_use, verify_directory
from ccstore.errors import ConfigError

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore verify /var/lib/ccstore/checkpoints
  ccstore verify --json /var/lib/ccstore/checkpoints | jq .good
  ccstore verify /backup/checkpoints && echo "the backup is good"

DIR is the directory that checkpoints.directory of the configuration names. Every byte of it is read,
of both formats. Nothing is changed, and a server may run meanwhile.

\b
Exit codes: 0 nothing is damaged, 1 something is, or DIR cannot be read.
No damage: torn ends of logs (a crash leaves them, nothing was acknowledged of them), unfinished
files, and strange names.
"""


@click.command("verify", epilog=_EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(directory: Path, as_json: bool) -> ExitCode:
    """Read all files of a checkpoint directory and check them."""
    try:
        with reading() as show:
            total = _count_bytes(directory)
            done = 0

            def advance(size: int) -> None:
                nonlocal done
                done += size
                show("reading", done, total)

            found = verify_directory(directory, advance)
        in_use = is_in_use(directory)
    except OSError as error:
        raise ConfigError(cannot_read(directory, error)) from error
    if as_json:
        click.echo(json.dumps(_as_json(found, in_use=in_use), ensure_ascii=False))
    else:
        _print(found, in_use=in_use)
    return ExitCode.OK if found.is_good else ExitCode.FAILED


def _count_bytes(directory: Path) -> int:
    """Return how much there is to read, for the bar."""
    sizes = (path.stat(follow_symlinks=False).st_size for path in directory.rglob("*") if path.is_file())
    try:
        return sum(sizes)
    except FileNotFoundError:  # a server removes files; then the bar does not know
        return 0


def _print(found: Verification, *, in_use: bool) -> None:
    directory = found.found.directory
    if in_use:
        click.echo(f"{directory}: in use by a running server, so this is how it was while it was read")
    else:
        click.echo(f"{directory}: not in use")
    _print_groups(found)
    for line in _lines(found):
        click.echo(line)
    for line in _problems(found):
        click.echo(f"ccstore: {line}", err=True)
    click.echo("everything can be read" if found.is_good else "DAMAGED: see above")


def _print_groups(found: Verification) -> None:
    table = plain_table("kind", "files", "size", "values", "bytes a value", "damaged", "torn end")
    groups = {kind.value: group for kind, group in found.groups.items()}
    total = Group()
    for group in groups.values():
        for name in ("files", "bytes", "values", "missing", "damaged", "torn"):
            setattr(total, name, getattr(total, name) + getattr(group, name))
    for name, group in [*groups.items(), ("all", total)]:
        count = group.values + group.missing
        each = f"{group.bytes / count:.2f}" if count else "-"
        size = bytes_of(group.bytes)
        states = (grouped(group.damaged), grouped(group.torn))
        table.add_row(name, grouped(group.files), size, grouped(group.values), each, *states)
    console = Console(width=None if Console().is_terminal else 1000, highlight=False, markup=False)
    console.print()
    console.print(table)
    console.print()


def _lines(found: Verification) -> Iterator[str]:
    """Yield what is to be said of a directory, beside damage."""
    names = (amount(found.series, "series", "series"), amount(found.hosts, "host"))
    span = f", {' to '.join(map(time_of, found.span))} UTC" if found.span else ""
    yield f"{' of '.join(names)}{span}"
    if found.found.columnar:
        covered = amount(found.covered_segments, "segment")
        yield f"in checkpoints as well: {covered} of the log, those with numbers below {found.covered}"
        replayed = amount(found.replayed_segments, "segment")
        samples = amount(found.replayed_samples, "sample")
        yield f"to be replayed at the next start: {replayed} of the log with {samples}"
        if found.has_damaged_checkpoints:
            yield "a checkpoint is damaged: the next start reads all segments that there are"
        if found.missing_numbers:
            yield (
                f"numbers without a file: {grouped(found.missing_numbers)} "
                "(it was removed, or there was nothing to write)"
            )
    if found.vanished:
        yield f"removed by the server meanwhile: {amount(found.vanished, 'file')}"
    for path in found.found.leftovers:
        yield f"not finished, removed at the next start: {path}"
    for path in found.found.strange:
        yield f"strange, nobody reads it: {path}"


def _problems(found: Verification) -> Iterator[str]:
    yield from found.unreadable
    for problem in found.problems:
        for damage in problem.damage:
            yield f"{problem.path}: {describe_damage(damage)}"
        if problem.nameless:
            yield f"{problem.path}: {amount(problem.nameless, 'value')} of series whose names are lost"
        if problem.tail is not None:
            yield f"{problem.path}: torn end: {describe_damage(problem.tail)}"


def _as_json(found: Verification, *, in_use: bool) -> dict[str, Any]:
    return {
        "directory": str(found.found.directory),
        "good": found.is_good,
        "in_use": in_use,
        "files": {
            kind.name.lower(): {
                "files": group.files,
                "bytes": group.bytes,
                "values": group.values,
                "missing": group.missing,
                "damaged": group.damaged,
                "torn_end": group.torn,
            }
            for kind, group in found.groups.items()
        },
        "series": found.series,
        "hosts": found.hosts,
        "first": found.span and found.span[0],
        "last": found.span and found.span[1],
        "covered": found.covered,
        "covered_segments": found.covered_segments,
        "replayed_segments": found.replayed_segments,
        "replayed_samples": found.replayed_samples,
        "missing_numbers": found.missing_numbers,
        "vanished": found.vanished,
        "leftovers": list(map(str, found.found.leftovers)),
        "strange": list(map(str, found.found.strange)),
        "unreadable": found.unreadable,
        "problems": [
            {
                "file": str(problem.path),
                "damage": list(map(damage_as_json, problem.damage)),
                "nameless": problem.nameless,
                "torn_end": damage_as_json(problem.tail) if problem.tail is not None else None,
            }
            for problem in found.problems
        ],
    }
