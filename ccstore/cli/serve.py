"""The command ``serve``: the server in the foreground, as systemd wants it."""

import logging

import click
import trio

from ccstore.cli import config_option, log_options
from ccstore.cli.warmup import compile_kernels
from ccstore.config import load_config
from ccstore.errors import ConfigError
from ccstore.server.logs import configure_logging
from ccstore.server.service import run

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
@click.option(
    "--dev", is_flag=True, help="Accepted for the reference store's sake: / always tells what there is."
)
@click.option("--gops", is_flag=True, help="Accepted for the reference store's sake, without effect.")
@click.option("--cleanup-checkpoints", is_flag=True, help="Clean up old checkpoints once, and exit.")
def command(
    config: str | None, loglevel: str, logdate: bool, dev: bool, gops: bool, cleanup_checkpoints: bool
) -> None:
    """Run the store: receive, keep, answer."""
    configure_logging(loglevel, dates=logdate)
    loaded = load_config(config)
    if cleanup_checkpoints:
        raise ConfigError(
            "--cleanup-checkpoints: this version writes no checkpoints, so there are none to clean up"
        )
    if dev or gops:
        logging.getLogger("ccstore.cli").info("--dev and --gops have no effect")
    compile_kernels()
    trio.run(run, loaded)
