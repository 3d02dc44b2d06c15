"""The program `headrace`, apart from the package, so that an interrupt before that is imported ends it quietly."""

import _signal  # type: ignore[import-not-found]  # built in, so that nothing is read for it


def main() -> None:
    """Run the command line."""
    # Nothing is there yet that an interrupt would have to end in order. The command line brings its own handlers.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from headrace.cli import main as run

    run()
