"""The command line. Importing this package imports neither click nor rich."""

from __future__ import annotations

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    import signal
    import sys

    # Nothing is there yet that an interrupt would have to end in order: until the imports are done it ends the process.
    is_interruptible = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL)
    if is_interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from headrace.cli.app import ExitCode, run_command

    def terminate(_number: int, _frame: FrameType | None) -> None:
        sys.exit(ExitCode.TERMINATED)

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)
    try:
        if is_interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run_command(sys.argv[1:])
    except KeyboardInterrupt:  # one more, while the first was being dealt with
        code = ExitCode.INTERRUPTED
    if is_interruptible:
        # It is as good as over, and what is left ends in order. (SIG_IGN would be complained of while one is pending.)
        signal.signal(signal.SIGINT, lambda *_: None)
    sys.exit(code)
