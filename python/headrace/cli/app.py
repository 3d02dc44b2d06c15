"""The commands by name, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import enum
import os
import sys
from importlib import import_module
from importlib.metadata import version

import click

from headrace.errors import HeadraceError, InfraError, UsageError

_COMMANDS = {
    "bench": "headrace.cli.bench",
    "demo": "headrace.cli.demo",
    "run": "headrace.cli.workflow",
    "top": "headrace.cli.top",
    "why": "headrace.cli.why",
    "broker": "headrace.cli.broker",
    "worker": "headrace.cli.worker",
    "keygen": "headrace.cli.keygen",
    "status": "headrace.cli.status",
}


class ExitCode(enum.IntEnum):
    """What a script may rely on."""

    OK = 0
    TASKS_FAILED = 1
    USAGE = 2
    INFRASTRUCTURE = 3
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class _LazyGroup(click.Group):
    """Imports a command's module when the command is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        return import_module(module).command if module else None


@click.group(cls=_LazyGroup, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("headrace"), "--version", "-V", prog_name="headrace")
def app() -> None:
    """Run large task graphs on worker processes.

    \b
    Exit codes:
      0    everything ran and every answer is right
      1    tasks failed, or an answer is wrong
      2    the command line or its input is not usable
      3    headrace itself could not go on (workers, broker, system)
      130  interrupted by Ctrl-C
      141  whoever read the output went away
      143  terminated by SIGTERM
    """  # noqa: D301  (the \b is for click: it must be the character)


def run_command(arguments: list[str]) -> ExitCode:
    """Run one command.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code. Whatever went wrong has been said in one line on standard error.
    """
    if sys.stdout is None:
        return _say("standard output is closed", ExitCode.INFRASTRUCTURE)
    try:
        # Not `app.main`: it would turn a broken pipe into the code of failed tasks.
        with app.make_context("headrace", list(arguments)) as context:
            code = app.invoke(context)
        sys.stdout.flush()
        return ExitCode(code or ExitCode.OK)
    except click.exceptions.Exit as request:
        return ExitCode(request.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "headrace"
        return _say(f"{error.format_message()} (see '{command} --help')", ExitCode.USAGE)
    except click.ClickException as error:
        return _say(error.format_message(), ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", ExitCode.INTERRUPTED)
    except SystemExit as request:
        if request.code != ExitCode.TERMINATED:
            raise
        return _say("terminated", ExitCode.TERMINATED)
    except BrokenPipeError:
        _give_up_output()
        return ExitCode.BROKEN_PIPE
    except UsageError as error:
        return _say(f"{type(error).__name__}: {error}", ExitCode.USAGE)
    except InfraError as error:
        return _say(f"{type(error).__name__}: {error}", ExitCode.INFRASTRUCTURE)
    except HeadraceError as error:
        return _say(f"{type(error).__name__}: {error}", ExitCode.TASKS_FAILED)
    except OSError as error:
        _give_up_output()
        return _say(f"{type(error).__name__}: {error}", ExitCode.INFRASTRUCTURE)


def _give_up_output() -> None:
    """Give the interpreter, which flushes standard output once more at exit, somewhere to put it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str, code: ExitCode) -> ExitCode:
    """Print one line for people."""
    click.echo(f"headrace: {' '.join(text.split())}", err=True)
    return code
