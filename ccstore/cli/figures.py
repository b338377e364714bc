"""What the commands that look at files share: a bar while files are read, and words for figures.

Owns words on the terminal; reads no file. Invariant: the bar goes to stderr and only to a terminal, so stdout
has nothing but the answer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ccstore.disk.frames import Damage

__all__ = [
    "amount",
    "bytes_of",
    "describe_damage",
    "grouped",
    "plain_table",
    "reading",
    "time_of",
]

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@contextmanager
def reading(*, hidden: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on a terminal; yields what to call with what is done, how far it is, and how far it goes.

    hidden: whether others print to the terminal meanwhile, so that a bar would be in the way.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:14}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=hidden or not console.is_terminal
    ) as progress:
        task = progress.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total or None)

        yield show


def plain_table(*columns: str, left: int = 1) -> Table:
    """Return a table without lines; the first `left` columns begin at the left, numbers end at the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", no_wrap=True)
    return table


def grouped(number: int) -> str:
    """Return a whole number with its digits in groups: ``12 345``."""
    return f"{number:,}".replace(",", " ")


def amount(number: int, what: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 host``, ``12 345 hosts``."""
    return f"{grouped(number)} {what if number == 1 else plural or what + 's'}"


def bytes_of(size: int) -> str:
    """Return a size for people: ``412 B``, ``1.2 MB``."""
    for unit, factor in _UNITS:
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def time_of(seconds: int) -> str:
    """Return a time in UTC, as a number of seconds where no calendar has it."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def describe_damage(damage: Damage) -> str:
    """Return where damage is, what it is, and what it costs."""
    cost = "lost values unknown" if damage.samples is None else amount(damage.samples, "value") + " lost"
    return f"byte {damage.offset}: {damage.reason} ({amount(damage.size, 'byte')}, {cost})"


def cannot_read(path: Path, error: OSError) -> str:
    """Return the one line for a file that the system does not let us read."""
    return f"{path}: cannot be read ({error.strerror})"
