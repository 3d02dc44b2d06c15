"""Standard output and error of a worker process: what tasks print is marked with the attempt that prints it.

`print`, `logging`, warnings and tracebacks come through here. What native code and other programs write to the same
descriptors has no mark, and counts as written by the task that executes when it is read.
"""

from __future__ import annotations

import io
import sys

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from headrace._core import Output

#: Standard output and error by the numbers under which text travels.
STREAMS = {1: "stdout", 2: "stderr"}


class Marked(io.FileIO):
    """A standard descriptor to which each piece goes with a mark before it."""

    def __init__(self, stream: int, output: Output) -> None:
        super().__init__(stream, "wb", closefd=False)
        self._stream = stream
        self._output = output

    def write(self, data: Buffer, /) -> int | None:  # type: ignore[override]
        """Write what fits into one piece."""
        return self._output.write(self._stream, data)


def open_streams(output: Output) -> None:
    """Replace `sys.stdout` and `sys.stderr`; those that are closed stay so."""
    streams = []
    for number, name in STREAMS.items():
        inherited = getattr(sys, name)
        if inherited is None:
            continue
        buffer = io.BufferedWriter(Marked(number, output))
        stream = io.TextIOWrapper(buffer, inherited.encoding, inherited.errors, line_buffering=True)
        for file in (buffer, stream):
            file.write = output.noting(number, file.write)  # type: ignore[method-assign]
        stream.mode = "w"  # type: ignore[misc]  # as the interpreter's own have it
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        streams.append(stream)

    def flush() -> None:
        for stream in streams:
            try:  # noqa: SIM105  # each worker would pay for the import of contextlib
                stream.flush()
            except ValueError:  # closed or detached
                pass

    output.set_flush(flush)
