"""What tasks print, on this process's own standard output and error."""

from __future__ import annotations

import sys


def write_lines(worker: int, stream: int, text: bytes) -> None:
    """Write whole lines of a worker, each marked with its number.

    Args:
        worker: number of the worker.
        stream: 1 for standard output, 2 for standard error.
        text: the lines, each with its end of line.
    """
    file = sys.stdout if stream == 1 else sys.stderr
    if file is None:
        return
    lines = text.decode(errors="replace").splitlines(keepends=True)
    file.write("".join(f"[worker {worker}] {line}" for line in lines))
    file.flush()
