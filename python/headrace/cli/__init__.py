"""The command line. Importing this package imports neither click nor rich."""

from __future__ import annotations


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    import sys

    from headrace.cli.app import run_command

    sys.exit(run_command(sys.argv[1:]))
