"""The command ``inspect``: what a file holds, as text or as JSON."""

import fnmatch
import json
import math
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from ccstore.cli import ExitCode
from ccstore.cli.figures import (
    amount,
    cannot_read,
    describe_damage,
    grouped,
    plain_table,
    reading,
    time_of,
)
from ccstore.disk.contents import Content, FileKind, Series, open_file
from ccstore.disk.folding import pick_samples
from ccstore.disk.frames import Damage
from ccstore.disk.inspection import Inspection, SeriesCount, inspect_file, values_of
from ccstore.errors import CorruptionError
from ccstore.model import Runs, Samples

__all__ = ["command", "damage_as_json"]

_EPILOG = """
\b
Examples:
  ccstore inspect var/checkpoints/columnar/0/0000000017.log
  ccstore inspect --series '*/cpu_load' 0000000017.ckpt         which series, how many values
  ccstore inspect --series 'alex/a0001/*' --values current.wal  the values themselves
  ccstore inspect --json *.ckpt | jq .damage

A series is written as its place and its metric: alex/a0001/cpu_load, alex/a0001/socket0/mem_bw. In a PATTERN,
* stands for anything, also for several levels, and ? for one character. Quote it, or the shell takes it.

\b
Exit codes: 0 all files are good; 1 one is damaged, or is no file of ccstore or of the reference.
A torn end of a log is no damage: a crash leaves it, and nothing was acknowledged of it.
"""

_HEAD_TIMES = ("begun", "from", "to")
_UNITS = {FileKind.SEGMENT: "frame", FileKind.CHECKPOINT: "block"}


@click.command("inspect", epilog=_EPILOG)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--series", "pattern", metavar="PATTERN", help="List the series whose name matches.")
@click.option(
    "--values", is_flag=True, help="List values with their times, of all series or those of --series."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each file, and for each value.")
def command(files: tuple[Path, ...], pattern: str | None, values: bool, as_json: bool) -> ExitCode:
    """Show what files hold: kind, head, counts, times, damage.

    Takes all files of a checkpoint directory: segments and checkpoints of ccstore, logs and checkpoints of
    the reference store. Nothing is changed; files of a running server can be looked at as well.
    """
    code = ExitCode.OK
    for index, path in enumerate(files):
        try:
            is_good = _show(path, pattern, values, as_json, first=index == 0)
        except BrokenPipeError:
            raise  # nobody listens any more
        except (CorruptionError, OSError) as error:
            text = cannot_read(path, error) if isinstance(error, OSError) else error
            click.echo(f"ccstore: {text}", err=True)
            is_good = False
        if not is_good:
            code = ExitCode.FAILED
    return code


def _show(path: Path, pattern: str | None, values: bool, as_json: bool, *, first: bool) -> bool:
    """Show one file; tell whether it is good."""
    content = open_file(path)
    chosen = _Chosen(content, pattern)
    write = partial(_print_values_as_json if as_json else _print_values, content, chosen)
    if not first and not as_json:
        click.echo()
    with reading(hidden=values and sys.stdout.isatty()) as show:

        def see(part: Runs | Samples) -> None:
            show(path.name, content.position, content.size)
            if values:
                write(part)

        found = inspect_file(content, see=see)
    listed = [one for one in found.series if chosen(one.series)] if pattern is not None else []
    if as_json:
        click.echo(json.dumps(_as_json(found, listed if pattern is not None else None), ensure_ascii=False))
    else:
        if values:
            click.echo()
        _print_summary(found)
        if pattern is not None:
            _print_series(found.content.path, listed)
    return found.is_good


class _Chosen:
    """Which series of a file are wanted; each is matched once."""

    def __init__(self, content: Content, pattern: str | None) -> None:
        self._content = content
        self._pattern = pattern
        self._by_number: list[bool] = []

    def __call__(self, series: Series) -> bool:
        """Tell whether a series is wanted."""
        return self._pattern is None or fnmatch.fnmatchcase(str(series), self._pattern)

    def number(self, number: int) -> bool:
        """Tell whether the series with this number is wanted."""
        self._by_number += map(self, self._content.series[len(self._by_number) :])
        return self._by_number[number]


def _rows(content: Content, chosen: _Chosen, part: Runs | Samples) -> Iterator[tuple[int, Series, float]]:
    """Yield time, series and value of what is wanted of a part, in the order of the file."""
    samples = values_of(part, content)
    used, rows = np.unique(samples.numbers, return_inverse=True)
    wanted = np.array([chosen.number(number) for number in used.tolist()], np.bool_)
    samples = pick_samples(samples, np.flatnonzero(wanted[rows]))
    for number, time, value in zip(
        samples.numbers.tolist(), samples.times.tolist(), samples.values, strict=True
    ):
        yield time, content.series[number], value


def _print_values(content: Content, chosen: _Chosen, part: Runs | Samples) -> None:
    lines = [
        f"{time_of(time)}  {'-' if math.isnan(value) else str(value):>14}  {series}\n"
        for time, series, value in _rows(content, chosen, part)
    ]
    click.echo("".join(lines), nl=False)


def _print_values_as_json(content: Content, chosen: _Chosen, part: Runs | Samples) -> None:
    lines = [
        json.dumps(
            {
                "file": str(content.path),
                "series": str(series),
                "time": time,
                "value": float(str(value)) if math.isfinite(value) else None,  # the shortest that is the same
            },
            ensure_ascii=False,
        )
        for time, series, value in _rows(content, chosen, part)
    ]
    click.echo("".join(f"{line}\n" for line in lines), nl=False)


# --- the file as a whole


def _print_summary(found: Inspection) -> None:
    content = found.content
    click.echo(f"{content.path}: {content.kind.value}")
    for name, text in _facts(found):
        click.echo(f"  {name:<12}{text}")


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    """Yield what is known of a file, in words."""
    content = found.content
    for name, number in content.head.items():
        yield name, time_of(number) + " UTC" if name in _HEAD_TIMES else str(number)
    yield "size", f"{grouped(content.size)} bytes"
    if content.kind is FileKind.COVERED:
        if content.head:
            below = content.head["number"]
            yield "meaning", f"samples of segments with numbers below {below} are in checkpoints as well"
    else:
        if unit := _UNITS.get(content.kind):
            yield unit + "s", grouped(content.records)
        missing = f", {grouped(found.missing)} missing" if found.missing else ""
        yield "values", grouped(found.values) + missing
        names = (amount(found.hosts, "host"), amount(found.metrics, "metric"))
        yield "series", f"{grouped(len(found.series))} ({', '.join(names)})"
        if found.span is not None:
            yield "times", " to ".join(map(time_of, found.span)) + " UTC"
        if found.bytes_per_value is not None:
            yield "per value", f"{found.bytes_per_value:.2f} bytes"
    yield from _describe_state(found)


def _describe_state(found: Inspection) -> Iterator[tuple[str, str]]:
    for damage in found.damage:
        yield "damage", describe_damage(damage)
    if found.content.nameless:
        yield "damage", f"{amount(found.content.nameless, 'value')} of series whose names are lost"
    if found.is_good:
        yield "damage", "none"
    if found.content.tail is not None:
        yield "torn end", describe_damage(found.content.tail)


def _print_series(path: Path, listed: list[SeriesCount]) -> None:
    if not listed:
        click.echo(f"ccstore: {path}: no such series", err=True)
        return
    table = plain_table("series", "every", "values", "missing", "first", "last")
    for one in listed:
        every = f"{one.series.frequency} s" if one.series.frequency else "-"
        counts = (grouped(one.values), grouped(one.missing))
        table.add_row(str(one.series), every, *counts, time_of(one.start), time_of(one.stop))
    console = Console(width=None if Console().is_terminal else 1000, highlight=False, markup=False)
    console.print()
    console.print(table)


# --- JSON


def _as_json(found: Inspection, listed: list[SeriesCount] | None) -> dict[str, Any]:
    content, span = found.content, found.span
    fields: dict[str, Any] = {
        "file": str(content.path),
        "kind": content.kind.name.lower(),
        "head": content.head,
        "bytes": content.size,
        "records": content.records,
        "values": found.values,
        "missing": found.missing,
        "series_count": len(found.series),
        "hosts": found.hosts,
        "metrics": found.metrics,
        "first": span and span[0],
        "last": span and span[1],
        "bytes_per_value": found.bytes_per_value,
        "good": found.is_good,
        "damage": [damage_as_json(damage) for damage in found.damage],
        "nameless": content.nameless,
        "torn_end": damage_as_json(content.tail) if content.tail is not None else None,
    }
    if listed is not None:
        fields["series"] = [_series_as_json(count) for count in listed]
    return fields


def _series_as_json(one: SeriesCount) -> dict[str, Any]:
    return {
        "series": str(one.series),
        "path": one.series.path,
        "metric": one.series.metric,
        "frequency": one.series.frequency or None,
        "values": one.values,
        "missing": one.missing,
        "first": one.start,
        "last": one.stop,
    }


def damage_as_json(damage: Damage) -> dict[str, Any]:
    """Return damage as a value for JSON."""
    return {
        "offset": damage.offset,
        "bytes": damage.size,
        "values": damage.samples,
        "reason": damage.reason,
    }
