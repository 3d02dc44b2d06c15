"""What every test may count on."""

import os
import signal
import sys
import tempfile
from pathlib import Path

# A shell that starts a command in the background makes it ignore interrupts, and its children inherit that. The tests
# are about what an interrupt does, so they start from the usual handler wherever they run.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Dask's distributed brings tblib, which changes how all exceptions of its process are pickled, and Dask imports it.
# The tests that are about it run in a process of their own.
if "HEADRACE_TEST_DISTRIBUTED" not in os.environ:
    sys.modules["distributed"] = None

AUDIT = Path(__file__).parent / "audit"


def pytest_configure(config):
    """Have every `headrace broker` that a test starts be watched: it ends at once if it unpickles anything."""
    if "HEADRACE_TEST_AUDIT" not in os.environ:
        descriptor, os.environ["HEADRACE_TEST_AUDIT"] = tempfile.mkstemp(prefix="headrace-audit-")
        os.close(descriptor)
        config.add_cleanup(lambda: Path(os.environ.pop("HEADRACE_TEST_AUDIT")).unlink(missing_ok=True))
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [path, str(AUDIT)]))


def pytest_sessionfinish(session):
    """Fail where one did, whatever became of its test."""
    lines = Path(os.environ["HEADRACE_TEST_AUDIT"]).read_text().splitlines()
    if any(line != "watched" for line in lines):
        session.exitstatus = session.exitstatus or 1


def pytest_terminal_summary(terminalreporter):
    """Say how many there were."""
    lines = Path(os.environ["HEADRACE_TEST_AUDIT"]).read_text().splitlines()
    watched = lines.count("watched")
    if lines:
        unpickled = [line for line in lines if line != "watched"]
        terminalreporter.write_line(f"{watched} brokers of their own were watched: {unpickled or 'none unpickled'}")
