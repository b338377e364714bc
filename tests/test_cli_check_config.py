"""The command check-config."""

import json
from pathlib import Path

import pytest

from ccstore.cli import ExitCode
from ccstore.cli.main import run
from ccstore.config import dump_config, load_config, make_schema

SITE = str(Path(__file__).parents[1] / "examples" / "config-site.json")
PLAIN = {
    "main": {"addr": "127.0.0.1:8082", "disable-authentication": False},
    "metrics": {"m": {"frequency": 60, "aggregation": None}},
    "metric-store": {"retention-in-memory": "1h", "memory-cap": 1, "checkpoints": {"file-format": "wal"}},
}


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    """Every test starts in a directory of its own, without a key in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JWT_PUBLIC_KEY", raising=False)


@pytest.mark.parametrize("arguments", [[SITE], ["--config", SITE]])
def test_it_prints_what_holds_and_that_can_be_loaded_again(arguments, capsys, tmp_path):
    """The path as an argument or an option; stdout is JSON and nothing else."""
    assert run(["check-config", *arguments]) == ExitCode.OK
    printed = capsys.readouterr().out
    assert json.loads(printed) == dump_config(load_config(SITE, environ={}))
    (tmp_path / "again.json").write_text(printed)
    assert run(["check-config", "again.json"]) == ExitCode.OK
    assert capsys.readouterr().out == printed


def test_without_a_file_it_prints_the_defaults(capsys):
    """And says that there is no file."""
    assert run(["check-config"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert json.loads(out)["main"]["addr"] == "127.0.0.1:8082"
    assert (
        err.splitlines()[0] == "ccstore: warning: ./config.json: no such file, so everything has its default"
    )


def test_every_mistake_is_a_line_and_nothing_is_printed(capsys, tmp_path):
    """Exit code 1, all mistakes on stderr, stdout empty."""
    (tmp_path / "config.json").write_text('{"main": {"addr": 1}, "metric-store": {"memory-cap": 1}}')
    assert run(["check-config"]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["ccstore", "main.addr"],
        ["ccstore", "metric-store.retention-in-memory"],
    ]


def test_reference_fails_only_because_of_notes(capsys, tmp_path):
    """A note is no mistake, unless going back is what is asked for; warnings never count."""
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    assert run(["check-config"]) == ExitCode.OK
    assert "ccstore: note: main.disable-authentication: " in capsys.readouterr().err
    assert run(["check-config", "--reference"]) == ExitCode.FAILED
    capsys.readouterr()
    (tmp_path / "config.json").write_text(json.dumps(PLAIN | {"main": {"addr": "127.0.0.1:8082"}}))
    assert run(["check-config", "--reference"]) == ExitCode.OK
    err = capsys.readouterr().err
    assert "warning" in err
    assert "note" not in err


def test_the_key_in_the_environment_counts(capsys, monkeypatch):
    """What is printed is what the server would use."""
    monkeypatch.setenv("JWT_PUBLIC_KEY", "A" * 43 + "=")
    assert run(["check-config"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["main"]["jwt-public-key"] == "A" * 43 + "="


def test_clusters_are_counted(capsys, tmp_path):
    """One line for each: how many metrics, and how many hosts in which subcluster."""
    archive = Path(SITE).parent / "job-archive"
    (tmp_path / "config.json").write_text(json.dumps(PLAIN | {"archive": {"path": str(archive)}}))
    assert run(["check-config"]) == ExitCode.OK
    line = capsys.readouterr().err.splitlines()[0]
    assert line == "ccstore: cluster alpha: 4 metrics; cpu 991 hosts, gpu 16 hosts"
    assert line in (Path(SITE).parents[1] / "docs" / "reference" / "cli.md").read_text()


def test_the_schema_is_printed_whatever_the_file_is(capsys, tmp_path):
    """An editor needs it most for a file that is not right yet."""
    (tmp_path / "config.json").write_text("{")
    assert run(["check-config", "--schema"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == make_schema()
