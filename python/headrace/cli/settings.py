"""Options from a file and from the environment: flags go before the environment, and that goes before the file."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

#: Names a file of settings where `--config` does not.
VARIABLE = "HEADRACE_CONFIG"


def configurable(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command whose options may also stand in a file and in the environment.

    Args:
        name: of the command, of its table in the file, and of its variables: HEADRACE_NAME_OPTION.
    """

    def decorate(run: Callable[..., Any]) -> click.Command:
        config = click.option(
            "--config",
            metavar="FILE",
            envvar=VARIABLE,
            is_eager=True,
            expose_value=False,
            callback=_read,
            help=f"TOML with options in a table [{name}]; the environment and flags go before it.",
        )
        settings = {"auto_envvar_prefix": f"HEADRACE_{name.upper()}"}
        return click.command(name, context_settings=settings)(config(run))

    return decorate


def _read(context: click.Context, _parameter: click.Parameter, path: str | None) -> None:
    """Make what a file says the defaults of a command."""
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--config {path}: {error}", context) from None
    name = context.command.name
    table = tables.get(str(name), {})
    options = {_spelling(option): option for option in context.command.params if option.name != "config"}
    context.default_map = {}
    for key, value in table.items() if isinstance(table, dict) else ():
        option = options.get(key)
        if option is None:
            known = ", ".join(sorted(options))
            raise click.UsageError(f"{path}: [{name}] has no option {key!r}; it has {known}", context)
        context.default_map[str(option.name)] = _value(f"{path}: [{name}] {key}", option, value, context)


def _spelling(option: click.Parameter) -> str:
    """Give the word for an option in a file: that of its flag, without the hyphens in front."""
    return max(option.opts, key=len).lstrip("-")


def _value(where: str, option: click.Parameter, value: object, context: click.Context) -> object:
    """Give a value of TOML as the words of a command line are taken."""
    if isinstance(value, dict) and option.multiple:
        return [f"{name}={amount}" for name, amount in value.items()]
    wants = "a list or a table" if option.multiple else "one value"
    if isinstance(value, list | dict) != option.multiple:
        raise click.UsageError(f"{where}: it takes {wants}, not {value!r}", context)
    try:
        return option.type_cast_value(context, value)
    except click.BadParameter as error:
        raise click.UsageError(f"{where}: {error.message}", context) from None
