"""The command line. Importing this package imports neither click nor rich."""

from __future__ import annotations


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    import signal
    import sys

    # Nothing is there yet that an interrupt would have to end in order: until the imports are done it ends the process.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from headrace.cli.app import run_command

    signal.signal(signal.SIGINT, handler)
    sys.exit(run_command(sys.argv[1:]))
