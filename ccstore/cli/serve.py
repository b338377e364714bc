"""The command ``serve``: the server in the foreground, as systemd wants it."""

import gc
import logging
from typing import Literal

import click

from ccstore.cli import config_option, log_options
from ccstore.config import Config, load_config
from ccstore.server.logs import configure_logging

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore serve                             ./config.json, or defaults for this machine alone
  ccstore serve --config /etc/ccstore/config.json --loglevel info

SIGTERM and the first Ctrl-C stop the server softly: what was received is finished. A second
Ctrl-C ends it at once. Under systemd use Type=notify.
"""


@click.command("serve", epilog=_EPILOG)
@config_option
@log_options
@click.option("--dev", is_flag=True, help="Accepted, without effect: / always tells what there is.")
@click.option("--gops", is_flag=True, help="Accepted, without effect.")
@click.option(
    "--cleanup-checkpoints",
    is_flag=True,
    help="Remove checkpoints older than the retention, and exit.",
)
def command(
    config: str | None,
    loglevel: str,
    logdate: bool,
    logformat: Literal["text", "json"],
    dev: bool,
    gops: bool,
    cleanup_checkpoints: bool,
) -> None:
    """Run the store: receive, keep, answer."""
    configure_logging(loglevel, dates=logdate, form=logformat)
    loaded = load_config(config)
    if dev or gops:
        logging.getLogger("ccstore.cli").info("--dev and --gops have no effect")
    if cleanup_checkpoints:
        _clean_up(loaded)
        return
    # Imported only now, which takes a second: a mistake in the configuration is told at once.
    import trio

    from ccstore.cli.warmup import compile_kernels
    from ccstore.server.service import run

    compile_kernels()
    gc.collect()
    gc.freeze()  # what was imported and compiled stays: looking through it again takes the loop 50 ms
    trio.run(run, loaded)


def _clean_up(config: Config) -> None:
    import trio

    from ccstore.cli.figures import amount
    from ccstore.server.cleanup import clean_up
    from ccstore.server.clock import wall_clock
    from ccstore.server.used_nodes import lonely_provider

    async def run() -> int:
        return await clean_up(config, now=wall_clock(), used_nodes=lonely_provider(config))

    removed = trio.run(run)
    click.echo(f"{config.metric_store.checkpoints.directory}: {amount(removed, 'old checkpoint')} removed")
