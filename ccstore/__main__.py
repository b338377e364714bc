"""The program ``ccstore``, and ``python -m ccstore``: hands the command line to `ccstore.cli.main`."""

import sys

from ccstore.cli.main import run

__all__ = ["main"]


def main() -> int:
    """Run the command line of this process and return its exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
