"""headrace's broker by itself: workers that answer at once, no socket, no Python. The form in which some peers publish.

Such a figure stands beside end-to-end ones, and says nothing about them. It needs the repository and cargo.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from headrace.errors import UsageError

#: The machine without sockets: what submitting and running a task take in it.
_MACHINE = re.compile(r"^(\S+) +(\d+) tasks +(\d+) edges .*submit +([\d.]+) ns/task +run +([\d.]+) ns/task")
#: The broker with real sockets and processes of workers without Python.
_BROKER = re.compile(r"^(\d+) workers +(\d+) tasks +([\d.]+) million tasks a second")


def scheduler_alone() -> list[tuple[str, str, int, float]]:
    """Run the harnesses.

    Returns:
        For each graph the harness, the shape, its tasks, and nanoseconds a task from SUBMIT to the last result.

    Raises:
        UsageError: this is an installed headrace, or there is no cargo.
    """
    if shutil.which("cargo") is None or not (repository := _repository()):
        raise UsageError("--scheduler-alone needs headrace's repository and cargo: the harness is written in Rust")
    rows = []
    for line in _output(repository, "headrace-protocol", "broker"):
        if found := _MACHINE.match(line):
            rows.append(("machine", found[1], int(found[2]), float(found[4]) + float(found[5])))
    for line in _output(repository, "headrace-runtime", "broker_alone"):
        if found := _BROKER.match(line):
            rows.append(("broker, sockets", f"independent, {found[1]} workers", int(found[2]), 1e3 / float(found[3])))
    return rows


def _output(repository: Path, package: str, bench: str) -> list[str]:
    command = ["cargo", "bench", "--locked", "--quiet", "--package", package, "--bench", bench]
    # The Rust side finds libzmq beside the Python that measures.
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    return subprocess.run(
        command, cwd=repository, stdout=subprocess.PIPE, text=True, check=True, env=environment
    ).stdout.splitlines()


def _repository() -> Path | None:
    """Where this runs, or where this file lies."""
    for folder in (Path.cwd(), Path(__file__).parents[3]):
        if (folder / "rust" / "protocol" / "benches" / "broker.rs").exists():
            return folder
    return None
