"""The command ``checkpoint``: let a running server write down what is in no checkpoint yet."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from ccstore.cli.client import Client, ServerError, server_options
from ccstore.cli.figures import amount, bytes_of, reading

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore checkpoint                                 of the server on this machine
  ccstore checkpoint --url https://store:8082        with the token in CCSTORE_TOKEN
"""
_LOOK_SECONDS = 0.25


@click.command("checkpoint", epilog=_EPILOG)
@server_options
def command(url: str, token: str) -> None:
    """Let a running store write a checkpoint now, and wait until it is on disk."""
    with Client(url, token=token) as client, reading() as show, _watching(url, token, show):
        written = client.post("/api/checkpoint")
    try:
        files, values, size = (int(written[name]) for name in ("files", "values", "bytes"))
        seconds = float(written["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{url}/api/checkpoint: no answer of this store ({error!r})") from error
    what = (
        f"{amount(values, 'value')} in {amount(files, 'file')} ({bytes_of(size)})" if files else "nothing new"
    )
    click.echo(f"{what}, {seconds:.1f} s")


@contextmanager
def _watching(url: str, token: str, show: Callable[[str, int, int], None]) -> Iterator[None]:
    """Show how far the server is while the context is open."""
    done = threading.Event()

    def watch() -> None:
        with Client(url, token=token) as client:
            while not done.wait(_LOOK_SECONDS):
                try:
                    share = float(client.get_json("/api/stats")["checkpoint_progress"])
                except (ServerError, KeyError, TypeError, ValueError):
                    return  # who asked for the checkpoint is told what is wrong; a bar is not worth a word
                show("writing", int(1000 * share), 1000)

    threading.Thread(target=watch, daemon=True).start()  # nobody waits for it: the answer is what counts
    try:
        yield
    finally:
        done.set()
