"""What has to hold before a change lands: `nox` without arguments runs it all."""

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")


def find_pythons() -> list[str]:
    """Return the supported versions of which an interpreter works here, also where only pyenv knows it."""
    found = []
    for version in nox.project.python_versions(PYPROJECT):
        name = f"python{version}"
        kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}"), reverse=True)
        for candidate in (shutil.which(name), *map(str, kept)):
            if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
                os.environ["PATH"] = f"{Path(candidate).parent}{os.pathsep}{os.environ['PATH']}"
                found.append(version)
                break
    return found


PYTHONS = find_pythons()
BOTH_ENDS = dict.fromkeys(f"tests-{version}" for version in (PYTHONS[-1], PYTHONS[0]))
nox.options.sessions = ["lint", "types", "rooms", *BOTH_ENDS]


def install(session: nox.Session, group: str, *, package: bool = True) -> None:
    """Install a group of requirements, and ccstore as a user would get it."""
    requirements = nox.project.dependency_groups(PYPROJECT, group)
    session.install(*requirements, *(["."] if package else []))


# What depends on the version of Python, or of Quart, which has others for older ones. The rest does not, and
# CI has a quarter of an hour: so by default the newest Python runs all tests, and the oldest these.
VERSIONED = [
    "tests/test_client*.py",
    "tests/test_cli_main.py",
    "tests/test_public_names.py",
    "tests/test_server_api_query.py",
    "tests/test_server_api_requests.py",
    "tests/test_server_http*.py",
    "tests/test_server_live.py",
    "tests/test_server_nats_client.py",
    "tests/test_server_service.py",
]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests: all of them on the newest Python found, and what versions differ in on others."""
    install(session, "test")
    session.run("ccstore", "warmup")
    if session.python != PYTHONS[-1]:
        chosen = sorted(str(path) for pattern in VERSIONED for path in Path().glob(pattern))
        session.run("pytest", "-n", "auto", *chosen, *session.posargs)
        return
    session.run("pytest", "-n", "auto", *session.posargs)
    if shutil.which("chromium") is None:
        session.warn("nobody has looked at the page: there is no chromium (wanted: apt-get install chromium)")
    elif not session.posargs:
        look(session)


def look(session: nox.Session) -> None:
    """Look at the page with Debian's chromium."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "browser"))
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    install(session, "lint", package=False)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    install(session, "types")
    session.run("mypy")


@nox.session
def rooms(session: nox.Session) -> None:
    """Check that rooms import only downwards."""
    install(session, "lint", package=False)
    session.run("lint-imports", env={"PYTHONPATH": "."})


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Check that what the documentation says is so; part of the tests on the newest Python."""
    install(session, "test")
    session.run("pytest", "tests/test_docs.py", *session.posargs)


@nox.session(default=False)
def examples(session: nox.Session) -> None:
    """Run every example; part of the tests on the newest Python."""
    install(session, "test")
    session.run("pytest", "tests/test_examples.py", *session.posargs)


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """Look at the page; part of the tests, too. With CCSTORE_SCREENSHOTS=docs/images it keeps pictures."""
    install(session, "test")
    look(session)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Run the tests with the kernels as plain Python, and report what no test reaches."""
    install(session, "test", package=False)
    session.install("-e", ".")
    environment = {"NUMBA_DISABLE_JIT": "1"}
    overflow = "ignore:overflow encountered:RuntimeWarning"  # numpy's numbers warn where machine code wraps
    session.run("coverage", "run", "-m", "pytest", "-W", overflow, *session.posargs, env=environment)
    session.run("coverage", "report", "--skip-covered", "--show-missing")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure this machine."""
    session.install(".", *[r for r in nox.project.dependency_groups(PYPROJECT, "test") if "nats-server" in r])
    session.run("ccstore", "bench", *session.posargs, env={"PYTHONUNBUFFERED": "1", **os.environ})
