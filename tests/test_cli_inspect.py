"""The command inspect: what a user sees of files, as text and as JSON."""

import json
import math
import re
import zlib
from pathlib import Path

import click
import pytest
from disk_columnar import CHECKPOINT, SEGMENT
from disk_directories import START, write_log, write_reference, write_segment

from ccstore.cli import ExitCode
from ccstore.cli.inspect import command
from ccstore.cli.main import run

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
HOST = ("alex", "a1")


def section(name: str) -> str:
    """Return a section of the page of the command line."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found


def test_the_golden_files_as_text(capsys, monkeypatch) -> None:
    """Every kind of file with all of its series, to the letter."""
    monkeypatch.chdir(GOLDEN)
    files = sorted(
        str(p.relative_to(GOLDEN)) for room in ("columnar", "reference") for p in (GOLDEN / room).iterdir()
    )
    assert run(["inspect", "--series", "*", *files]) == ExitCode.OK
    assert capsys.readouterr().out == (GOLDEN / "tools" / "inspect.txt").read_text(encoding="utf-8")


def test_the_golden_files_as_json(capsys, monkeypatch) -> None:
    """One object a line, with the series, to the letter."""
    monkeypatch.chdir(GOLDEN)
    files = sorted(
        str(p.relative_to(GOLDEN)) for room in ("columnar", "reference") for p in (GOLDEN / room).iterdir()
    )
    assert run(["inspect", "--json", "--series", "*", *files]) == ExitCode.OK
    out = capsys.readouterr().out
    assert out == (GOLDEN / "tools" / "inspect.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["file"] for line in out.splitlines()] == files


def test_values_come_in_the_order_of_the_file(capsys, tmp_path: Path) -> None:
    """Each with its time in UTC and its series; a missing one is a dash."""
    key, other = (HOST, "load", START), ((*HOST, "socket0"), "power", START + 20)
    path = write_segment(tmp_path, 1, [[(key, 0.1), (other, math.nan)], [(key, 1e20)]])
    assert run(["inspect", "--values", str(path)]) == ExitCode.OK
    lines, _, _ = capsys.readouterr().out.partition("\n\n")
    assert lines.splitlines() == [
        "2023-11-14 22:13:30             0.1  alex/a1/load",
        "2023-11-14 22:13:50               -  alex/a1/socket0/power",
        "2023-11-14 22:13:30           1e+20  alex/a1/load",
    ]


def test_values_as_json(capsys, tmp_path: Path) -> None:
    """A line for each, the file's own line behind them."""
    key = (HOST, "load", START)
    path = write_segment(tmp_path, 1, [[(key, 0.1), (key, math.nan), (key, math.inf)]])
    assert run(["inspect", "--values", "--json", str(path)]) == ExitCode.OK
    *values, whole = map(json.loads, capsys.readouterr().out.splitlines())
    each = {"file": str(path), "series": "alex/a1/load", "time": START}
    assert values == [each | {"value": 0.1}, each | {"value": None}, each | {"value": None}]
    assert (whole["kind"], whole["values"], whole["missing"]) == ("segment", 2, 1)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["alex/a1/load", "alex/a1/socket0/power", "alex/a2/load"]),
        ("*/load", ["alex/a1/load", "alex/a2/load"]),
        ("alex/a1/*", ["alex/a1/load", "alex/a1/socket0/power"]),
        ("alex/a?/load", ["alex/a1/load", "alex/a2/load"]),
    ],
)
def test_a_pattern_chooses_series_and_values(capsys, tmp_path: Path, pattern: str, names: list[str]) -> None:
    """Over several levels, and both in the list and among the values."""
    keys = [(HOST, "load", START), ((*HOST, "socket0"), "power", START), (("alex", "a2"), "load", START)]
    path = write_segment(tmp_path, 1, [[(key, 1.0) for key in keys]])
    assert run(["inspect", "--json", "--values", "--series", pattern, str(path)]) == ExitCode.OK
    *values, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert [value["series"] for value in values] == names
    assert [one["series"] for one in whole["series"]] == names
    assert whole["series_count"] == 3


def test_a_pattern_without_a_match_is_told(capsys, tmp_path: Path) -> None:
    """On stderr; the file is as good as before."""
    path = write_segment(tmp_path, 1, [[((HOST, "load", START), 1.0)]])
    assert run(["inspect", "--series", "x", str(path)]) == ExitCode.OK
    assert capsys.readouterr().err == f"ccstore: {path}: no such series\n"


def test_damage_has_an_offset_and_a_cost(capsys, tmp_path: Path) -> None:
    """And makes the exit code 1, though everything else is shown."""
    path = tmp_path / "1.log"
    path.write_bytes(SEGMENT[:300] + b"\xff" + SEGMENT[301:])
    assert run(["inspect", str(path)]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert "\n  damage      byte 260: payload checksum mismatch (62 bytes, 4 values lost)\n" in out
    assert "\n  values      1\n" in out
    assert err == ""


def test_a_torn_end_is_no_damage(capsys, tmp_path: Path) -> None:
    """It is told, and the exit code is 0."""
    (path,) = write_log(tmp_path, [((HOST, "load", START), 1.0), ((HOST, "load", START), 2.0)])
    path.write_bytes(path.read_bytes()[:-1])
    assert run(["inspect", str(path)]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "\n  damage      none\n" in out
    assert re.search(
        r"\n  torn end    byte \d+: torn record \(30 bytes, wanted 31\) \(30 bytes, lost values unknown\)\n",
        out,
    )


def test_lost_names_and_incomplete_checkpoints_are_damage(capsys, tmp_path: Path) -> None:
    """Each with a line of its own."""
    (tmp_path / "1.ckpt").write_bytes(CHECKPOINT[:-160])
    names = SEGMENT[322:428]
    (tmp_path / "1.log").write_bytes(SEGMENT.replace(names, b"\0" * len(names)))
    assert run(["inspect", str(tmp_path / "1.ckpt"), str(tmp_path / "1.log")]) == ExitCode.FAILED
    out = capsys.readouterr().out
    assert "\n  damage      byte 335: incomplete (wanted an end) (0 bytes, lost values unknown)\n" in out
    assert "\n  damage      1 value of series whose names are lost\n" in out


def test_covered_is_explained(capsys, tmp_path: Path) -> None:
    """As a number alone it would say little."""
    (tmp_path / "covered").write_bytes(b"17 %08x\n" % zlib.crc32(b"17"))
    assert run(["inspect", str(tmp_path / "covered")]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "samples of segments with numbers below 17 are in checkpoints as well" in out
    (tmp_path / "covered").write_bytes(b"17 %08x\n" % zlib.crc32(b"18"))
    assert run(["inspect", str(tmp_path / "covered")]) == ExitCode.FAILED
    out = capsys.readouterr().out
    assert "as well" not in out
    assert "\n  damage      byte 0: no number with its checksum (12 bytes, 0 values lost)\n" in out


def test_files_that_are_none_are_one_line_each(capsys, tmp_path: Path) -> None:
    """The others are shown, and the exit code is 1."""
    (good,) = write_reference(tmp_path, 900, {(HOST, "load", START): 1.0})
    (tmp_path / "notes.txt").write_text("x" * 100)
    assert (
        run(["inspect", str(tmp_path / "notes.txt"), str(tmp_path / "none"), str(tmp_path), str(good)]) == 1
    )
    out, err = capsys.readouterr()
    nothing = "no file of ccstore or of the reference store"
    assert err.splitlines() == [
        f"ccstore: {tmp_path}/notes.txt: {nothing} (it begins with b'xxxxxxxx')",
        f"ccstore: {tmp_path}/none: cannot be read (No such file or directory)",
        f"ccstore: {tmp_path}: cannot be read (Is a directory)",
    ]
    assert f"{good}: binary checkpoint of the reference's format\n" in out


def test_without_a_file_it_is_wrong_usage(capsys) -> None:
    """One line, exit code 2."""
    assert run(["inspect"]) == ExitCode.USAGE
    assert (
        capsys.readouterr().err
        == "ccstore: inspect: missing argument 'FILE...' (see 'ccstore inspect --help')\n"
    )


def test_the_help_teaches(capsys) -> None:
    """How series are written, how to quote a pattern, and what exit codes mean."""
    assert run(["inspect", "--help"]) == ExitCode.OK
    out = capsys.readouterr().out
    text = " ".join(out.split())
    for part in ("Examples:", "alex/a0001/socket0/mem_bw", "Quote it", "Exit codes:", "torn end"):
        assert part in text
    assert max(map(len, out.splitlines())) <= 100


def test_the_page_of_the_command_line_has_every_option() -> None:
    """docs/reference/cli.md lists the options of inspect, and no others."""
    options = {param.opts[0] for param in command.params if isinstance(param, click.Option)}
    assert set(re.findall(r"^\| `(--[a-z]+)", section("inspect"), re.MULTILINE)) == options


def test_the_page_explains_every_field_of_the_json(capsys) -> None:
    """The names of fields are in the text of the section."""
    text = section("inspect")
    for line in (GOLDEN / "tools" / "inspect.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        for name in (*found, *(name for one in found["series"] for name in one)):
            assert f"`{name}`" in text, name


def test_the_example_of_the_guide_is_what_is_printed(capsys, monkeypatch) -> None:
    """docs/how-to/look-into-files.md shows a golden file under a name as it would have."""
    page = (ROOT / "docs" / "how-to" / "look-into-files.md").read_text(encoding="utf-8")
    monkeypatch.chdir(GOLDEN)
    assert run(["inspect", "--series", "*", "columnar/version-1.log"]) == ExitCode.OK
    shown = capsys.readouterr().out.replace("columnar/version-1.log", "0000000017.log")
    assert "\n".join(f"    {line}".rstrip() for line in shown.rstrip().splitlines()) in page


@pytest.mark.parametrize("arguments", [["inspect", "{}/columnar/0/0000000001.log"], ["verify", "{}"]])
def test_a_terminal_gets_a_bar(capsys, monkeypatch, tmp_path: Path, arguments: list[str]) -> None:
    """On stderr alone; without a terminal there is none."""
    write_segment(tmp_path, 1, [[((HOST, "load", START), 1.0)]])
    filled = [argument.format(tmp_path) for argument in arguments]
    assert run(filled) == ExitCode.OK
    without = capsys.readouterr()
    assert without.err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # that is what rich takes for a terminal
    monkeypatch.setenv("COLUMNS", "100")
    assert run(filled) == ExitCode.OK
    found = capsys.readouterr()
    assert "100%" in found.err
    assert "100%" not in found.out
