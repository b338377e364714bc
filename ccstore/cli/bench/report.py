"""What a benchmark says: rows of figures, as a table and as JSON."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict, frozen
from rich.table import Table

__all__ = ["Row", "as_table", "describe_machine"]


@frozen
class Row:
    """One figure, and what it is held against."""

    what: str
    value: float
    unit: str
    least: float | None = None
    """What it has to reach, or with a unit of time or memory not to exceed."""
    aim: float | None = None
    note: str = ""

    @property
    def small_is_good(self) -> bool:
        """Whether the figure is time or memory."""
        return self.unit in ("ms", "B", "MB", "s")

    def reaches(self, bound: float | None) -> bool:
        """Tell whether the figure is as good as a bound; anything is if there is none."""
        return bound is None or (self.value <= bound if self.small_is_good else self.value >= bound)

    def to_json(self) -> dict[str, object]:
        """Return the row as a value for JSON."""
        return asdict(self) | {"reached": self.reaches(self.least)}


def as_table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table for the terminal."""
    table = Table(title=f"ccstore bench: {describe_machine()}", title_justify="left")
    for name in ("What", "Measured", "Unit", "At least", "Aim", "Note"):
        table.add_column(name, justify="right" if name in ("Measured", "At least", "Aim") else "left")
    for row in rows:
        measured = f"[{_colour(row)}]{_number(row.value)}[/]"
        table.add_row(row.what, measured, row.unit, _number(row.least), _number(row.aim), row.note)
    return table


def _colour(row: Row) -> str:
    if not row.reaches(row.least):
        return "red"
    return "green" if row.aim is not None and row.reaches(row.aim) else "default"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def describe_machine() -> str:
    """Return processor, cores and Python in a few words."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"
