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
nox.options.sessions = ["lint", "types", "rooms", "tests", "docs", "examples"]

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


def install(session: nox.Session, group: str, *, package: bool = True) -> None:
    """Install a group of requirements, and ccstore as a user would get it."""
    requirements = nox.project.dependency_groups(PYPROJECT, group)
    session.install(*requirements, *(["."] if package else []))


# They look for trouble by brute force: every operation, every step of the event loop, every byte. What
# they find does not depend on the version of Python, so once is enough.
CAMPAIGNS = [
    "tests/test_cli_bench.py",
    "tests/test_disk_conversion.py",
    "tests/test_memory_jit.py",
    "tests/test_memory_properties.py",
    "tests/test_memory_restore.py",
    "tests/test_memory_saving.py",
    "tests/test_server_recovery_crashes.py",
    "tests/test_server_recovery_kill.py",
    "tests/test_server_recovery_reference_crashes.py",
    "tests/test_server_recovery_reference_writing.py",
    "tests/test_server_service_stop.py",
    "tests/test_server_wal_cancel.py",
    "tests/test_server_wal_faults.py",
]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every Python found; the newest one looks hard, the others more quickly."""
    install(session, "test")
    session.run("ccstore", "warmup")
    others, effort = ["tests/test_docs.py", "tests/test_examples.py"], {}
    if session.python != PYTHONS[-1]:
        others, effort = [*others, *CAMPAIGNS], {"CCSTORE_FUZZ_EXAMPLES": "30"}
    ignored = [f"--ignore={path}" for path in others]
    session.run("pytest", "-n", "auto", *ignored, *session.posargs, env=effort)


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


@nox.session
def docs(session: nox.Session) -> None:
    """Check that what the documentation says is so."""
    install(session, "test")
    session.run("ccstore", "warmup")
    session.run("pytest", "tests/test_docs.py", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example."""
    install(session, "test")
    session.run("ccstore", "warmup")
    session.run("pytest", "tests/test_examples.py", *session.posargs)


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
