"""What holds for all tests: each runs in a directory of its own, where a server may write."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the working directory, in which a server without configuration keeps its files."""
    monkeypatch.chdir(tmp_path)
