"""The page of the database says what the code does."""

import re
from pathlib import Path

import pytest

from ccstore.disk.registry import sql
from ccstore.disk.registry.jobs import DAY
from ccstore.model import Health, NodeState

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "registry.md").read_text(encoding="utf-8")


def test_the_tables() -> None:
    """The page has every table, and nothing else is in its table of tables."""
    rows = re.findall(
        r"^\| (`[^|]+) \|", PAGE.split("## Tables", 1)[1].split("###", 1)[0], flags=re.MULTILINE
    )
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {*sql.COLUMNS, "schema_migrations"}


@pytest.mark.parametrize(("heading", "table"), [("node_state", "node_state"), ("job and job_cache", "job")])
def test_the_columns(heading: str, table: str) -> None:
    """Every column but the numbers of rows is on the page, and no other."""
    section = PAGE.split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| (`[^|]+) \|", section, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == sql.COLUMNS[table] - {"id", "node_id"}


def test_the_words() -> None:
    """States, the version, and the day within which a start is a duplicate are those of the code."""
    assert ", ".join(f"`{state.value}`" for state in NodeState) in PAGE
    assert ", ".join(f"`{health.value}`" for health in Health) in PAGE
    assert f"schema version {sql.VERSION}," in PAGE
    assert f"less than {DAY // 1000} {DAY % 1000} s before or after" in PAGE
    assert "wal_autocheckpoint = 16384" in " ".join(sql.SETTINGS)
    assert "after 64 MiB" in PAGE
