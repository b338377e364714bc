"""The command ``warmup``: compile the hot loops ahead of the first start."""

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["command", "compile_kernels"]

_EPILOG = """
\b
The hot loops are compiled for this machine's processor on their first use and kept on disk, beside
the package if that can be written to, else in the user's cache directory (NUMBA_CACHE_DIR
names another one). "ccstore serve" does the same when it starts; for images and packages run this
once while they are built, on the kind of machine they will run on.
"""


def compile_kernels() -> None:
    """Compile all kernels, or load them from the cache; on a terminal show how far it is."""
    import ccstore.disk.reference.wal
    import ccstore.disk.segment
    import ccstore.memory.promql
    import ccstore.memory.query
    import ccstore.memory.saving
    import ccstore.memory.watch
    import ccstore.wire.query
    import ccstore.wire.scan
    import ccstore.wire.stream  # noqa: F401 -- importing these declares the kernels
    from ccstore.jit import warm_up

    columns = (
        TextColumn("compiling {task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for done, (name, left) in enumerate(warm_up()):
            progress.update(task, description=name, total=done + left, completed=done)


@click.command("warmup", epilog=_EPILOG)
def command() -> None:
    """Compile the hot loops ahead of the first start."""
    compile_kernels()
    click.echo("all hot loops are compiled")
