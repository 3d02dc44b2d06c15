"""A broker of its own for tests, and clients of it in processes of their own."""

import contextlib
import os

from outside import PATH, Home, Program, command_line


@contextlib.contextmanager
def broker(*options, home=None, workers=2):
    """A broker that runs, as (program, address). Its workers can import what lies in this folder."""
    with contextlib.ExitStack() as stack:
        home = home or stack.enter_context(Home())
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = PATH
        try:
            program = stack.enter_context(Program(home, *command_line("broker", "--workers", workers, *options)))
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before
        yield program, program.line().strip()
