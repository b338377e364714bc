"""Old checkpoints are removed once, without a server: what goes, what stays, and when nothing does."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from attrs import evolve
from disk_directories import START, write_checkpoint, write_log, write_reference, write_segment
from service_tools import make_config, with_store

from ccstore.config import Config
from ccstore.config.sections import CleanupConfig
from ccstore.disk.files import lock_directory
from ccstore.errors import ConfigError, UnavailableError
from ccstore.server.cleanup import clean_up

HOUR = 3600
RETENTION = 2 * HOUR
NOW = START + 10 * HOUR
OLD, YOUNG = START, NOW - HOUR


def config_for(directory: Path, retention: float = RETENTION) -> Config:
    """Return a configuration with a directory."""
    config = with_store(make_config(), retention_in_memory=float(retention))
    checkpoints = evolve(config.metric_store.checkpoints, directory=str(directory))
    return with_store(config, checkpoints=checkpoints)


def fill(directory: Path) -> None:
    """Write files of every format and kind, old ones and young ones."""
    for host in ("h1", "h2"):
        key = ("c", host), "load"
        for number, time in enumerate((OLD, YOUNG), 1):
            write_checkpoint(directory, number + 10 * int(host[1]), [{(*key, time): 1.0}])
            write_reference(directory, time, {(*key, time): 1.0}, stop=time + 60)
            write_reference(directory, time + 1, {(*key, time): 1.0}, ".json", stop=time + 60)
        write_segment(directory, 30 + int(host[1]), [[((*key, OLD), 1.0)]])
        write_log(directory, [((*key, OLD), 1.0)])


def names(directory: Path) -> set[str]:
    """Return the files in a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def old_of(host: str) -> set[str]:
    """Return the old checkpoints of a host."""
    number = 1 + 10 * int(host[1])
    return {f"columnar/0/{number:010d}.ckpt", f"c/{host}/{OLD}.bin", f"c/{host}/{OLD + 1}.json"}


async def test_what_is_old_goes(tmp_path: Path) -> None:
    """Checkpoints of every format go if all they hold is too old; logs stay. The second time nothing goes."""
    fill(tmp_path)
    before = names(tmp_path)
    assert await clean_up(config_for(tmp_path), now=NOW, used_nodes=None) == 6
    assert before - names(tmp_path) == old_of("h1") | old_of("h2")
    assert await clean_up(config_for(tmp_path), now=NOW, used_nodes=None) == 0


async def test_what_reaches_into_the_retention_stays(tmp_path: Path) -> None:
    """The end of a file counts, not the beginning that it is named after (D-73)."""
    write_reference(tmp_path, OLD, {(("c", "h1"), "load", OLD): 1.0}, stop=NOW - RETENTION + 1)
    write_checkpoint(tmp_path, 1, [{(("c", "h1"), "load", time): 1.0 for time in (OLD, NOW - RETENTION)}])
    assert await clean_up(config_for(tmp_path), now=NOW, used_nodes=None) == 0


async def test_hosts_with_running_jobs_keep_theirs(tmp_path: Path) -> None:
    """Who knows the jobs is asked for those that are older than the retention."""
    fill(tmp_path)
    asked = []

    async def used_nodes(before: int) -> Mapping[str, Sequence[str]]:
        asked.append(before)
        return {"c": ["h1"]}

    before = names(tmp_path)
    assert await clean_up(config_for(tmp_path), now=NOW, used_nodes=used_nodes) == 3
    assert before - names(tmp_path) == old_of("h2")
    assert asked == [NOW - RETENTION]


async def test_when_nothing_goes(tmp_path: Path) -> None:
    """Without a retention, and where it is not known who may need the files, or the directory is in use."""
    fill(tmp_path)
    before = names(tmp_path)

    async def nobody_knows(before: int) -> None:
        return None

    assert await clean_up(config_for(tmp_path, 0), now=NOW, used_nodes=None) == 0
    with pytest.raises(UnavailableError, match="not known"):
        await clean_up(config_for(tmp_path), now=NOW, used_nodes=nobody_knows)
    with lock_directory(tmp_path), pytest.raises(ConfigError, match="in use by another server"):
        await clean_up(config_for(tmp_path), now=NOW, used_nodes=None)
    archive = with_store(config_for(tmp_path), cleanup=CleanupConfig(mode="archive", directory="a"))
    with pytest.raises(ConfigError, match=r"cleanup\.mode"):
        await clean_up(archive, now=NOW, used_nodes=None)
    assert names(tmp_path) == before
    with pytest.raises(ConfigError, match="no such directory"):
        await clean_up(config_for(tmp_path / "missing"), now=NOW, used_nodes=None)
    assert not (tmp_path / "missing").exists()
