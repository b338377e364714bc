"""Which ccstore this is: version, revision and the Python it runs on."""

import importlib.metadata
import json
import platform
import shutil
import subprocess
from pathlib import Path

import ccstore

__all__ = ["describe_version"]


def describe_version() -> str:
    """Return one line with version, revision (or "unknown") and Python."""
    revision = _installed_revision() or _checked_out_revision() or "unknown"
    return f"ccstore {ccstore.__version__} (revision {revision}, Python {platform.python_version()})"


def _installed_revision() -> str | None:
    """Return the commit that an installer noted, which it does for an installation from a repository."""
    try:
        noted = importlib.metadata.distribution("ccstore").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    commit = json.loads(noted).get("vcs_info", {}).get("commit_id") if noted else None
    return commit[:12] if commit else None


def _checked_out_revision() -> str | None:
    """Return the commit of the working tree that this package lies in, or None if it lies in none."""
    root, git = Path(ccstore.__file__).parents[1], shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing from outside
    return done.stdout.strip() or None if done.returncode == 0 else None
