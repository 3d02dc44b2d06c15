"""What tasks print, on this process's own standard output and error."""

from __future__ import annotations

import sys

#: The number that stands for none.
NO_WORKER = 0xFFFF_FFFF


def write_lines(worker: int, stream: int, text: bytes) -> None:
    """Write whole lines of a worker, each marked with its number; headrace's own lines stand as they are.

    Args:
        worker: number of the worker; `NO_WORKER` for headrace itself.
        stream: 1 for standard output, 2 for standard error.
        text: the lines, each with its end of line.
    """
    file = sys.stdout if stream == 1 else sys.stderr
    if file is None:
        return
    lines = text.decode(errors="replace").splitlines(keepends=True)
    mark = "" if worker == NO_WORKER else f"[worker {worker}] "
    file.write("".join(mark + line for line in lines))
    file.flush()
