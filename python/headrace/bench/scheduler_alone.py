"""headrace's broker by itself: workers that answer at once, no socket, no Python. The form in which some peers publish.

Such a figure stands beside end-to-end ones, and says nothing about them. It needs the repository and cargo.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from headrace.errors import UsageError

_REPOSITORY = Path(__file__).parents[3]
_ROW = re.compile(r"^(\S+) +(\d+) tasks +(\d+) edges .*submit +([\d.]+) ns/task +run +([\d.]+) ns/task")


def scheduler_alone() -> list[tuple[str, int, float]]:
    """Run the harness.

    Returns:
        For each graph its shape, its tasks, and nanoseconds a task from SUBMIT to the last result.

    Raises:
        UsageError: this is an installed headrace, or there is no cargo.
    """
    if not (_REPOSITORY / "rust" / "protocol" / "benches" / "broker.rs").exists() or shutil.which("cargo") is None:
        raise UsageError("--scheduler-alone needs headrace's repository and cargo: the harness is written in Rust")
    command = ["cargo", "bench", "--locked", "--quiet", "--package", "headrace-protocol", "--bench", "broker"]
    output = subprocess.run(command, cwd=_REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [found for line in output.splitlines() if (found := _ROW.match(line))]
    return [(row[1], int(row[2]), float(row[4]) + float(row[5])) for row in rows]
