"""The frame of the command line: which commands there are, and how they end.

This module owns the table of commands, the flags of the reference store, which work without a
command, and the way from an exception to one line on stderr and an exit code. It knows nothing
of what a command does. Invariant: a `CcstoreError` and a usage error are shown as one line each
problem and never as a traceback; every other exception is a bug of ours and keeps its traceback.
"""

import difflib
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence

import click

from ccstore.cli import ExitCode
from ccstore.errors import CcstoreError, ConfigError

__all__ = ["COMMANDS", "run"]

COMMANDS: Mapping[str, str] = {
    "serve": "Run the store: receive, keep, answer.",
    "demo": "Run a store with a simulated cluster, to look at.",
    "simulate": "Publish the metrics of a simulated site over NATS or HTTP.",
    "query": "Ask a store; show a table or a plot.",
    "tail": "Show metrics of a store as they come in.",
    "checkpoint": "Let a running store write a checkpoint now.",
    "status": "Show how a running store is, and what is wrong.",
    "nodes": "Show the states and the health of nodes.",
    "jobs": "Show running and recent jobs.",
    "bench": "Measure this machine and print one table.",
    "warmup": "Compile the hot loops ahead of the first start.",
    "check-config": "Check a configuration and print what it means.",
    "inspect": "Show what files of checkpoints and logs hold.",
    "verify": "Check a whole directory of checkpoints and logs.",
    "convert": "Write a directory of checkpoints anew in another format.",
}
"""Command names in the order of the help, with their line there; the modules are not imported for it."""

_VALUE_FLAGS = ("config", "loglevel")
_SWITCHES = ("cleanup-checkpoints", "dev", "gops", "logdate")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

_EPILOG = """
\b
Examples:
  ccstore demo                            a store with data, and the address to look at
  ccstore check-config config.json        every mistake at once, or what will hold
  ccstore serve --config config.json      the store in production
  ccstore -config config.json -dev        the same, with the flags of the reference store

\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C.
"ccstore COMMAND --help" tells more.
"""


class Commands(click.Group):
    """A group that imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click calls it so
        cmd_name: str,
    ) -> click.Command | None:
        """Import the command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ccstore.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but with a hint for a misspelt name."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            meant = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"no such command {args[0]!r}" + (f", did you mean {meant[0]!r}?" if meant else ""))
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click calls it so
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the table without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from ccstore.cli.version import describe_version

        click.echo(describe_version())
        ctx.exit()


@click.command(
    cls=Commands,
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print version and revision, and exit.",
)
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Keep the metrics of an HPC cluster in memory, and answer questions about them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(ExitCode.USAGE)


def run(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` (without the program's name) ask for; return the exit code."""
    try:
        code = commands.main(translate(arguments), prog_name="ccstore", standalone_mode=False)
    except click.ClickException as error:
        return _report(_describe_usage(error), code=error.exit_code)
    except click.Abort:  # what click makes of KeyboardInterrupt
        return ExitCode.INTERRUPTED
    except CcstoreError as error:
        return _report(*_problems(error))
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            return ExitCode.INTERRUPTED
        if not all(isinstance(leaf, CcstoreError) for leaf in leaves):
            raise
        return _report(*(line for leaf in leaves for line in _problems(leaf)))
    return code if isinstance(code, int) else ExitCode.OK


def translate(arguments: Sequence[str]) -> list[str]:
    """Return click's form of a command line in the form of the reference store.

    Its flags have one or two dashes, stand alone or with ``=value``, and need no command: they
    mean ``serve``. Everything else is returned as it is.
    """
    head = list(arguments[:1])
    if head != ["serve"] and not (head and _flag(head[0])):
        return list(arguments)
    rest = list(arguments[1:] if head == ["serve"] else arguments)
    translated = []
    while rest and (flag := _flag(rest[0])):
        rest.pop(0)
        name, value = flag
        if name == "version":
            return ["--version"]
        if name in _VALUE_FLAGS:
            value = rest.pop(0) if value is None and rest else value
            translated.append(f"--{name}" if value is None else f"--{name}={value}")
        elif value not in _FALSE:
            translated.append(f"--{name}" if value is None or value in _TRUE else f"--{name}={value}")
    return ["serve", *translated, *rest]


def _flag(argument: str) -> tuple[str, str | None] | None:
    """Split a flag of the reference store into its name and its value."""
    match = re.fullmatch(r"--?([a-z-]+)(?:=(.*))?", argument, re.DOTALL)
    known = match is not None and match[1] in (*_VALUE_FLAGS, *_SWITCHES, "version")
    return (match[1], match[2]) if match is not None and known else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _problems(error: BaseException) -> Sequence[str]:
    return error.problems if isinstance(error, ConfigError) else str(error).splitlines()


def _describe_usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path.removeprefix("ccstore").strip() if context else ""
    text = message[:1].lower() + message[1:]
    hint = f" (see 'ccstore {command} --help')".replace("  ", " ") if context else ""
    return (f"{command}: " if command else "") + text + hint


def _report(*problems: str, code: int = ExitCode.FAILED) -> int:
    for problem in problems:
        click.echo(f"ccstore: {problem}", err=True)
    return code
