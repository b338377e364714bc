"""The command verify: what a user sees of a directory, as text and as JSON."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
from disk_directories import ROOM, START, write_checkpoint, write_log, write_reference, write_segment
from test_cli_inspect import section

from ccstore.cli import ExitCode
from ccstore.cli.main import run
from ccstore.cli.verify import command
from ccstore.disk import layout
from ccstore.disk.files import OsDisk, lock_directory

GOLDEN = Path(__file__).parent / "golden" / "tools"
A, B = (("alex", "a1"), "load", START), (("alex", "a2"), "power", START + 20)
REPOSITORY = Path(__file__).parents[1]
LOCKER = """
import sys
from pathlib import Path
from ccstore.disk.files import lock_directory
with lock_directory(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def make_directory(directory: Path) -> None:
    """Write both formats, with a torn end, a leftover and a strange name."""
    write_segment(directory, 1, [[(A, 1.0)]])
    write_checkpoint(directory, 2, [{A: 1.0, B: 2.0}])
    torn = write_segment(directory, 4, [[(A, 3.0)], [(A, 4.0)]])
    torn.write_bytes(torn.read_bytes()[:-1])
    layout.write_covered(OsDisk(), directory, 2)
    write_reference(directory, 900, {(("fritz", "f1"), "load", START + 60): 1.0})
    write_log(directory, [((("fritz", "f1"), "load", START), 2.0)])
    (directory / ROOM / "0" / "0000000005.ckpt.tmp").write_bytes(b"")
    (directory / "fritz" / "f1" / "note").write_bytes(b"")


def test_a_good_directory_as_text(capsys, tmp_path: Path, monkeypatch) -> None:
    """Groups, coverage, leftovers, and the torn end on stderr, to the letter; exit code 0."""
    monkeypatch.chdir(tmp_path)
    make_directory(tmp_path / "checkpoints")
    assert run(["verify", "checkpoints"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert out == (GOLDEN / "verify.txt").read_text(encoding="utf-8")
    assert err == (
        "ccstore: checkpoints/columnar/0/0000000004.log: torn end: byte 252: "
        "payload cut (got 19 bytes, wanted 20) (43 bytes, 1 value lost)\n"
    )


def test_a_good_directory_as_json(capsys, tmp_path: Path, monkeypatch) -> None:
    """One object, to the letter."""
    monkeypatch.chdir(tmp_path)
    make_directory(tmp_path / "checkpoints")
    assert run(["verify", "--json", "checkpoints"]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((GOLDEN / "verify.json").read_text(encoding="utf-8"))


def test_damage_is_a_line_and_makes_the_exit_code(capsys, tmp_path: Path) -> None:
    """With file, offset and cost, and what it means for the next start."""
    make_directory(tmp_path)
    path = tmp_path / ROOM / "0" / "0000000002.ckpt"
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    assert run(["verify", str(tmp_path)]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert f"ccstore: {path}: byte 36: payload checksum mismatch (" in err
    assert "a checkpoint is damaged: the next start reads all segments that there are\n" in out
    assert out.endswith("\nDAMAGED: see above\n")
    assert run(["verify", "--json", str(tmp_path)]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out)["good"] is False


def test_beside_a_running_server(capsys, tmp_path: Path) -> None:
    """It reads what there is, says that a server has it, and lets the server have it."""
    make_directory(tmp_path)
    command_ = [sys.executable, "-c", LOCKER, str(tmp_path)]
    with subprocess.Popen(
        command_, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "locked\n"
        assert run(["verify", str(tmp_path)]) == ExitCode.OK
        assert "in use by a running server" in capsys.readouterr().out.splitlines()[0]
        server.communicate("")
    with lock_directory(tmp_path):
        pass


def test_nothing_is_changed(tmp_path: Path) -> None:
    """Not even what is unfinished."""
    make_directory(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(["verify", str(tmp_path)]) == ExitCode.OK
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_empty_directory_is_good(capsys, tmp_path: Path) -> None:
    """A server that never wrote anything has one."""
    assert run(["verify", str(tmp_path)]) == ExitCode.OK
    assert capsys.readouterr().out.endswith("\neverything can be read\n")


def test_a_directory_that_is_not_there_is_one_line(capsys, tmp_path: Path) -> None:
    """Exit code 1, and nothing is made."""
    assert run(["verify", str(tmp_path / "x")]) == ExitCode.FAILED
    line = f"ccstore: {tmp_path}/x: no such directory (wanted that of the checkpoints)\n"
    assert capsys.readouterr() == ("", line)
    assert list(tmp_path.iterdir()) == []


def test_the_help_teaches(capsys) -> None:
    """What DIR is, what is no damage, and what exit codes mean."""
    assert run(["verify", "--help"]) == ExitCode.OK
    text = " ".join(capsys.readouterr().out.split())
    for part in ("Examples:", "checkpoints.directory", "a server may run", "Exit codes:", "No damage:"):
        assert part in text


def test_the_page_of_the_command_line_has_every_option() -> None:
    """docs/reference/cli.md lists the options of verify, and no others."""
    options = {param.opts[0] for param in command.params if isinstance(param, click.Option)}
    assert set(re.findall(r"^\| `(--[a-z]+)", section("verify"), re.MULTILINE)) == options


def test_the_page_explains_every_field_of_the_json() -> None:
    """The names of fields are in the text of the section."""
    found = json.loads((GOLDEN / "verify.json").read_text(encoding="utf-8"))
    for name in (*found, *found["files"]["log"], *found["problems"][0]):
        assert f"`{name}`" in section("verify"), name
