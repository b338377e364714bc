"""The command convert: what a user sees while a directory becomes another one."""

import json
import re
from pathlib import Path

import click
import pytest
from disk_directories import START, read_all, write_checkpoint, write_log, write_reference, write_segment
from test_cli_inspect import section

from ccstore.cli import ExitCode
from ccstore.cli.convert import command
from ccstore.cli.main import run
from ccstore.disk.conversion import FORMATS
from ccstore.disk.files import lock_directory

A, B = (("alex", "a1"), "load", START), (("alex", "a2"), "power", START + 20)
CONFIG = {
    "main": {"addr": "127.0.0.1:8082"},
    "metrics": {"load": {"frequency": 60, "aggregation": None}},
    "metric-store": {"retention-in-memory": "1h", "memory-cap": 1},
}


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    """Every test starts in a directory of its own, without a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JWT_PUBLIC_KEY", raising=False)


@pytest.mark.parametrize("to", FORMATS)
def test_the_new_directory_is_beside_the_old_one(capsys, to: str) -> None:
    """Named after the format; one line says what is in it."""
    write_checkpoint(Path("checkpoints"), 1, [{A: 1.0, B: 2.0}])
    assert run(["convert", "checkpoints/", "--to", to]) == ExitCode.OK
    assert read_all(Path(f"checkpoints.{to}")) == {A: 1.0, B: 2.0}
    out, err = capsys.readouterr()
    files = "1 file" if to == "columnar" else "2 files"
    assert re.fullmatch(rf"checkpoints\.{to}: 2 hosts, 2 series, 2 values in {files} \(\d+ B\)\n", out)
    assert err == ""


def test_values_of_the_same_slot_are_told(capsys) -> None:
    """A segment has what a checkpoint has as well, so fewer values come out than went in."""
    write_checkpoint(Path("checkpoints"), 1, [{A: 1.0}])
    write_segment(Path("checkpoints"), 1, [[(A, 1.0)], [(A, 2.0)]])
    assert run(["convert", "checkpoints", "--to", "wal", "--out", "new"]) == ExitCode.OK
    assert read_all(Path("new")) == {A: 2.0}
    assert (
        capsys.readouterr().out.splitlines()[1]
        == "2 values are left out: a later one of the same slot counts"
    )


def test_a_directory_in_use_is_refused(capsys) -> None:
    """With one line that says what to do; nothing is made."""
    write_checkpoint(Path("checkpoints"), 1, [{A: 1.0}])
    with lock_directory(Path("checkpoints")):
        assert run(["convert", "checkpoints", "--to", "wal"]) == ExitCode.FAILED
    assert capsys.readouterr() == ("", "ccstore: checkpoints: in use by a running server (stop it first)\n")
    assert [path.name for path in Path().iterdir()] == ["checkpoints"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none", "--to", "wal"], "none: no such directory (wanted that of the checkpoints)"),
        (["checkpoints", "--to", "wal", "--out", "full"], "full: not empty (wanted a new directory)"),
        (["checkpoints", "--to", "wal", "--out", "checkpoints"], "checkpoints: not empty (wanted a new "),
        (
            ["checkpoints", "--to", "wal", "--out", "checkpoints/new"],
            "checkpoints/new: in the directory that is converted (wanted one beside it)",
        ),
        (["checkpoints", "--to", "wal", "--out", "full/x/y"], "full/x/y.partial: Not a directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(capsys, arguments: list[str], line: str) -> None:
    """Exit code 1, nothing on stdout, and nothing is made."""
    write_checkpoint(Path("checkpoints"), 1, [{A: 1.0}])
    Path("full").mkdir()
    Path("full/x").write_bytes(b"")
    before = sorted(Path().rglob("*"))
    assert run(["convert", *arguments]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"ccstore: {line}")
    assert len(err.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_damage_is_told_and_the_rest_is_there(capsys) -> None:
    """A line for each loss; the exit code is 1 and the directory is there."""
    write_reference(Path("checkpoints"), 1000, {B: 2.0})
    (bad,) = write_reference(Path("checkpoints"), 900, {A: 1.0})
    bad.write_bytes(b"")
    assert run(["convert", "checkpoints", "--to", "columnar"]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert err.startswith(f"ccstore: {bad}: byte 0: ")
    assert len(err.splitlines()) == 1
    assert out.startswith("checkpoints.columnar: 1 host, 1 series, 1 value in 1 file (")
    assert read_all(Path("checkpoints.columnar")) == {B: 2.0}


@pytest.mark.parametrize("arguments", [[], ["--config", "other.json"]])
def test_logs_need_frequencies(capsys, arguments: list[str]) -> None:
    """From the configuration, ./config.json or that of --config."""
    write_log(Path("checkpoints"), [(A, 1.0)])
    assert run(["convert", "checkpoints", "--to", "columnar"]) == ExitCode.FAILED
    line = "load: frequency not known (in no checkpoint, wanted among the metrics of --config)"
    assert capsys.readouterr().err == f"ccstore: {line}\n"
    Path(arguments[1] if arguments else "config.json").write_text(json.dumps(CONFIG))
    assert run(["convert", "checkpoints", "--to", "columnar", *arguments]) == ExitCode.OK
    assert read_all(Path("checkpoints.columnar")) == {A: 1.0}


def test_the_format_must_be_named(capsys) -> None:
    """One line, exit code 2."""
    Path("checkpoints").mkdir()
    assert run(["convert", "checkpoints"]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("ccstore: convert: missing option '--to'")


def test_the_help_teaches(capsys) -> None:
    """What becomes of logs, where frequencies come from, and what exit codes mean."""
    assert run(["convert", "--help"]) == ExitCode.OK
    text = " ".join(capsys.readouterr().out.split())
    for part in ("Examples:", "is stopped", "not changed", "--config", "Exit codes:", *FORMATS):
        assert part in text


def test_the_page_of_the_command_line_has_every_option() -> None:
    """docs/reference/cli.md lists the options of convert, and no others."""
    options = {param.opts[0] for param in command.params if isinstance(param, click.Option)}
    assert set(re.findall(r"^\| `(--[a-z]+)", section("convert"), re.MULTILINE)) == options
