"""The program `headrace`, apart from the package: an interrupt of its first moments ends it before any of that is imported."""

import _signal  # built in, so that nothing is read for it


def main() -> None:
    """Run the command line."""
    # Nothing is there yet that an interrupt would have to end in order. The command line brings its own handlers.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from headrace.cli import main as run

    run()
