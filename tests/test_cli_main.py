"""The frame of the command line: help, version, the reference store's flags, errors and exit codes."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

import ccstore
from ccstore.cli import ExitCode, config_option, log_options, main, version
from ccstore.errors import BusyError, ConfigError, QueryError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def command(monkeypatch):
    """Return a function that lets the command "query" run a given function without parameters."""

    def install(body):
        module = SimpleNamespace(command=click.Command("query", callback=body))
        monkeypatch.setattr(main.importlib, "import_module", lambda _name: module)

    return install


def raising(error):
    """Return a function that raises `error`."""

    def body():
        raise error

    return body


def test_help_comes_without_numpy_numba_and_trio():
    """Help is quick: it imports no command, let alone what commands are made of."""
    program = (
        "import sys; from ccstore.cli.main import run; code = run(['--help']); "
        "slow = {'numpy', 'numba', 'trio', 'quart', 'rich', 'attrs'} & set(sys.modules); "
        "slow |= {m for m in sys.modules if m.startswith('ccstore.cli.') and m != 'ccstore.cli.main'}; "
        "sys.exit(code if not slow else f'imported: {slow}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name, line in main.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", done.stdout, re.MULTILINE)


def test_python_dash_m_is_the_program():
    """`python -m ccstore` ends with the exit code of the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "ccstore", "nothing"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ccstore: no such command 'nothing' (see 'ccstore --help')\n"


def test_without_arguments_the_help_is_shown(capsys):
    """And nothing was done, which the exit code tells a service manager."""
    assert main.run([]) == ExitCode.USAGE
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--version", "-version"])
def test_version(flag, capsys):
    """Version, revision and Python on one line, with either number of dashes."""
    assert main.run([flag]) == ExitCode.OK
    form = r"ccstore (\S+) \(revision (unknown|[0-9a-f]{12}), Python 3\.\S+\)\n"
    found = re.fullmatch(form, capsys.readouterr().out)
    assert found is not None
    assert found[1] == ccstore.__version__


def test_the_revision_of_an_installation_comes_from_its_metadata(monkeypatch):
    """An installer that fetched a commit notes it in direct_url.json."""
    noted = json.dumps({"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}})
    distribution = SimpleNamespace(read_text=lambda _name: noted)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _name: distribution)
    assert "(revision 0123456789ab," in version.describe_version()


def test_the_revision_of_a_working_tree_comes_from_git(monkeypatch, tmp_path):
    """A package inside a repository reports its commit, and one outside reports none."""

    def nothing(_name):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    monkeypatch.setattr(version.ccstore, "__file__", str(tmp_path / "ccstore" / "__init__.py"))
    assert "(revision unknown," in version.describe_version()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert "(revision unknown," in version.describe_version()
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert f"(revision {head[:12]}," in version.describe_version()


@pytest.mark.parametrize(
    ("arguments", "translated"),
    [
        (["-config", "c.json"], ["serve", "--config=c.json"]),
        (["--config", "c.json"], ["serve", "--config=c.json"]),
        (["-config=c.json"], ["serve", "--config=c.json"]),
        (["-config", "-odd"], ["serve", "--config=-odd"]),
        (["-config"], ["serve", "--config"]),
        (["-loglevel", "info", "-logdate"], ["serve", "--loglevel=info", "--logdate"]),
        (["-dev", "-gops", "--cleanup-checkpoints"], ["serve", "--dev", "--gops", "--cleanup-checkpoints"]),
        (["-dev=true", "-gops=1"], ["serve", "--dev", "--gops"]),
        (["-dev=false", "-logdate=0"], ["serve"]),
        (["-dev=maybe"], ["serve", "--dev=maybe"]),
        (["-dev", "-version"], ["--version"]),
        (["serve", "-config", "c.json", "-dev"], ["serve", "--config=c.json", "--dev"]),
        (["serve", "--config", "c.json"], ["serve", "--config=c.json"]),
        (["serve", "--help"], ["serve", "--help"]),
        (["-dev", "extra", "-gops"], ["serve", "--dev", "extra", "-gops"]),
        (["query", "-config", "c.json"], ["query", "-config", "c.json"]),
        (["--help"], ["--help"]),
        (["-unknown"], ["-unknown"]),
        ([], []),
    ],
)
def test_flags_of_the_reference_store(arguments, translated):
    """One or two dashes, a space or an equals sign, Go's booleans; other commands are left alone."""
    assert main.translate(arguments) == translated


def test_the_flags_reach_serve(monkeypatch):
    """A service file of the reference store starts the server with what it says."""
    seen = []

    @click.command("serve")
    @config_option
    @log_options
    @click.option("--dev", is_flag=True)
    def serve(**options):
        seen.append(options)

    asked = []
    monkeypatch.setattr(
        main.importlib, "import_module", lambda n: asked.append(n) or SimpleNamespace(command=serve)
    )
    assert main.run(["-config", "c.json", "-loglevel", "odd", "-dev"]) == ExitCode.OK
    assert seen == [
        {"config": "c.json", "loglevel": "odd", "logdate": False, "logformat": "text", "dev": True}
    ]
    assert set(asked) == {"ccstore.cli.serve"}


def test_a_command_returns_its_exit_code(command):
    """None is done, a number is itself, and click's exit counts as well."""
    for body, code in (
        (lambda: None, 0),
        (lambda: ExitCode.FAILED, 1),
        (raising(click.exceptions.Exit(2)), 2),
    ):
        command(body)
        assert main.run(["query"]) == code


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (
            ConfigError(["main.addr: empty", "nats.x: unknown key"]),
            ["main.addr: empty", "nats.x: unknown key"],
        ),
        (QueryError("selector: unknown metric (got 'x')"), ["selector: unknown metric (got 'x')"]),
        (ExceptionGroup("", [BusyError("a"), ExceptionGroup("", [QueryError("b")])]), ["a", "b"]),
    ],
)
def test_an_error_of_ours_is_one_line_for_each_problem(command, capsys, error, lines):
    """No traceback, exit code 1, also out of a nursery."""
    command(raising(error))
    assert main.run(["query"]) == ExitCode.FAILED
    assert capsys.readouterr() == ("", "".join(f"ccstore: {line}\n" for line in lines))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt(), QueryError("cut off")])]
)
def test_ctrl_c_ends_a_command_quietly(command, capsys, error):
    """Exit code 130 and no traceback, also out of a nursery."""
    command(raising(error))
    assert main.run(["query"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("bug"), ExceptionGroup("", [QueryError("x"), KeyError("bug")])]
)
def test_a_bug_keeps_its_traceback(command, error):
    """What nobody raised on purpose is not dressed up as an operator's mistake."""
    command(raising(error))
    with pytest.raises(type(error)) as caught:
        main.run(["query"])
    assert caught.value is error


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["serv"], "no such command 'serv', did you mean 'serve'? (see 'ccstore --help')"),
        (["check-config", "a", "b"], "check-config: got unexpected extra argument (b)"),
        (["check-config", "a", "--config", "b"], "check-config: path given twice (got PATH and --config, "),
    ],
)
def test_wrong_usage_is_one_line(arguments, what, capsys):
    """It names the command, what was wrong and where to read on; exit code 2."""
    assert main.run(arguments) == ExitCode.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ccstore: {what}")
    assert line.endswith("--help')")


def test_the_page_of_the_command_line_lists_commands_and_exit_codes():
    """docs/reference/cli.md has every command with its line, every exit code and every reference flag."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([a-z][a-z-]*)` \| (.*) \|$", page, re.MULTILINE)) == dict(main.COMMANDS)
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == list(ExitCode)
    flags = re.findall(r"^\| `-([a-z][a-z-]*)", page, re.MULTILINE)
    assert sorted(flags) == sorted([*main._VALUE_FLAGS, *main._SWITCHES, "version"])
